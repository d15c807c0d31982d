from __future__ import annotations

import torch
from torch import nn

from gradwatch.diagnosis.largest_first import largest_first
from gradwatch.probing import probe
from gradwatch.profile import BackwardProfile


def test_an_activation_counts_for_the_weights_before_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 64), nn.Sigmoid(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1)
    )
    with probe(model) as profile:
        model(torch.randn(32, 4)).sum().backward()
    assert largest_first(["1", "3", "5"], profile) == ("5", "3", "1")  # after 32, 512 and 1024 weights
    assert largest_first(["0", "2", "4", "6"], profile) == ("4", "2", "0", "6")


def test_of_equals_the_first_one_comes_first() -> None:
    assert largest_first(["a", "", "b"], BackwardProfile()) == ("a", "b")
