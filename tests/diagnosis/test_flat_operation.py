from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Diagnosis, History
from gradwatch.diagnosis import DeadUnits, FlatOperation
from gradwatch.profile import BackwardProfile, Segment
from tests.diagnosis.profiles import NAN, PROFILES, alert, linear

OUT, ROUND = linear("out", 1.0), Segment("net", "other", "Round", 0.0, 1.0)


def explain(profile: BackwardProfile | None, rule: str = "dead") -> Diagnosis | None:
    return FlatOperation().explain(History(), profile, [alert(rule, "fc", value=0.0)])


def test_rounding_between_two_layers() -> None:
    profile = BackwardProfile((OUT, ROUND))
    found = explain(profile)
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == (
        "flat_operation",
        "architecture",
        0.9,
        ("fc",),
    )
    assert found.evidence == ("all of the gradient comes to Round in net, and nothing passes it",)
    assert found.remedy.startswith("leave Round out, or keep it in the forward pass alone")
    dead = History.from_grad_norms(fc=[0.0] * 9, out=[1.0] * 9)
    assert DeadUnits().explain(dead, profile, [alert("dead", "fc", value=0.0)]) is None


def test_what_has_no_straight_way_through_is_to_be_looked_at() -> None:
    found = explain(BackwardProfile((OUT, Segment("", "norm", "NativeLayerNorm", 0.0, 1.0))), rule="vanishing")
    assert found is not None
    assert (found.remedy, found.change) == (
        "look at NativeLayerNorm: what it gives does not depend on what it is given",
        "",
    )


@pytest.mark.parametrize("kind", ["weight", "activation", "attention", "residual"])
def test_layers_and_activations_have_causes_of_their_own(kind: str) -> None:
    assert explain(BackwardProfile((OUT, replace(ROUND, kind=kind)))) is None


@pytest.mark.parametrize("gain", [1.0, 1e-30, NAN, math.inf])
def test_what_passes_something(gain: float) -> None:
    assert explain(BackwardProfile((OUT, replace(ROUND, gain=gain)))) is None


@pytest.mark.parametrize("profile", [None, *PROFILES.values()])
def test_what_is_something_else(profile: BackwardProfile | None) -> None:
    assert explain(profile) is None


def test_only_of_a_gradient_that_is_lost() -> None:
    assert explain(BackwardProfile((OUT, ROUND)), rule="exploding") is None


def test_a_long_name() -> None:
    found = explain(BackwardProfile((OUT, replace(ROUND, layer="x" * 300))))
    assert found is not None
    assert f"Round in {'x' * 300}, and" in found.evidence[0]


def test_it_comes_before_the_learning_rate() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).sigmoid().round())

    torch.manual_seed(0)
    model, inputs = Net(), torch.randn(64, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(40):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()).backward()
            optimizer.step()
    assert [found.cause for found in monitor.report().diagnoses] == ["flat_operation"]
