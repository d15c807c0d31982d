from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Alert, Severity
from gradwatch.rules import Shrinking
from tests.histories import NAN, stats, told_by
from tests.tensors import normal


def check(first: list[float], now: list[float], left: float = 1.0, rule: Shrinking | None = None) -> list[Alert]:
    """The sizes of two layers at the first step, and after a hundred, when this share of the error is left."""
    looks: dict[int, dict[str, Any]] = {
        0: {"param_norm": np.array(first)},
        1: {"output_error": 1.0},
        100: {"param_norm": np.array(now), "output_error": left},
    }
    return told_by(rule or Shrinking(), [stats(i, {"fc": 1.0, "out": 1.0}, **looks.get(i, {})) for i in range(110)])


def test_what_has_shrunk_is_named_with_what_is_left() -> None:
    found = check([8.0, 2.0], [0.4, 0.5])
    assert [(a.step, a.layer, a.severity) for a in found] == [
        (100, "fc", Severity.ERROR),
        (100, "out", Severity.ERROR),
    ]
    assert found[0].value == pytest.approx(0.05)
    assert found[0].message == (
        "fc, out: parameters have shrunk to 0.05 of what they began with, and nothing has been learned"
    )


@pytest.mark.parametrize(
    ("first", "now", "left"),
    [
        ([8.0, 2.0], [2.5, 1.0], 1.0),
        ([8.0, 2.0], [0.4, 1.9], 1.0),  # a part that is of no use
        ([8.0, 2.0], [0.4, 0.1], 0.9),  # something is learned
        ([8.0, 2.0], [0.4, 0.1], NAN),
        ([0.0, NAN], [0.0, 0.1], 1.0),
        ([8.0, 2.0], [NAN, NAN], 1.0),
    ],
)
def test_what_keeps_its_size_or_learns_or_is_not_known(first: list[float], now: list[float], left: float) -> None:
    assert check(first, now, left) == []


def test_a_limit_of_ones_own() -> None:
    assert check([8.0, 2.0], [0.4, 0.5], rule=Shrinking(threshold={"*": 0.04})) == []
    with pytest.raises(ValueError, match="Shrinking: threshold must be above 0"):
        Shrinking(threshold=0.0)


def test_a_history_whose_beginning_was_not_seen() -> None:
    steps = [stats(100 + i, {"fc": 1.0}, param_norm=np.array([0.1]), output_error=1.0) for i in range(250)]
    assert told_by(Shrinking(), steps) == []


@pytest.mark.parametrize(("weight_decay", "told"), [(100.0, True), (0.01, False)])
def test_weight_decay_under_adam_lets_no_gradient_vanish(weight_decay: float, told: bool) -> None:
    torch.manual_seed(0)
    x = normal(256, 16)
    y = (x @ normal(16, 4, seed=1)).argmax(1)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for i in range(110):
            batch = torch.arange(64 * i, 64 * i + 64) % 256
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    assert {a.rule for a in monitor.alerts} == ({"shrinking"} if told else set())
    for found in monitor.report().diagnoses:
        assert (found.cause, found.layers) == ("weight_decay", ("0", "2"))
        share = float(found.evidence[0].split("have ")[1].split()[0])
        assert share < 0.1
        assert found.evidence[0].endswith(f": {1 - share ** (1 / 100):.2%} less at every step") or told
