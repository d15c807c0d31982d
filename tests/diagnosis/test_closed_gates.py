from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.diagnosis import ClosedGates
from gradwatch.profile import BackwardProfile, Segment
from tests.diagnosis.profiles import alert
from tests.tensors import normal


class Gated(nn.Module):
    def __init__(self, bias: float) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(16, 16), nn.Linear(16, 16)
        nn.init.normal_(self.value.weight, std=0.25)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * torch.sigmoid(self.gate(x))  # type: ignore[no-any-return]


def report(*biases: float) -> gw.Report:
    torch.manual_seed(0)
    x, y = normal(64, 16), torch.arange(64) % 4
    model = nn.Sequential(*map(Gated, biases), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return monitor.report()


@pytest.mark.parametrize("biases", [(-6.0, -6.0, -6.0), (0.0, -8.0, 0.0)])
def test_gates_whose_biases_close_them(biases: tuple[float, ...]) -> None:
    found = report(*biases).diagnoses[0]
    closed = [f"{i}.gate" for i, bias in enumerate(biases) if bias]
    span = f"{closed[0]} ... {closed[-1]}" if len(closed) > 1 else closed[0]
    assert (found.cause, found.confidence, found.layers) == ("closed_gates", 0.95, ("0", "1", "2"))
    assert found.remedy == f"set the initial biases of {span} to 0"
    assert found.change == "init_scale"


def test_open_gates_are_none() -> None:
    assert "closed_gates" not in {d.cause for d in report(0.0, 0.0, 0.0).diagnoses}


def explain(rule: str, *segments: Segment) -> gw.Diagnosis | None:
    return ClosedGates().explain(gw.History(), BackwardProfile(segments), [alert(rule)])


def test_what_is_multiplied_without_biases_is_led_around() -> None:
    gate, layer = Segment("glu", "multiply", "Mul", 1e-4, 1.0), Segment("fc", "weight", "Addmm", 0.5, 1.0)
    found = explain("vanishing", *[layer, gate] * 3)
    assert found is not None
    share = 3 * math.log(1e-4) / (3 * math.log(1e-4) + 3 * math.log(0.5))
    assert found.confidence == pytest.approx(share / 2, abs=0.005)
    assert (found.change, found.layers) == ("residual", ("glu",))
    assert found.remedy.startswith("add skip connections around each layer")


@pytest.mark.parametrize(
    ("rule", "segment"),
    [
        ("exploding", Segment("glu", "multiply", "Mul", 1e-4, 1.0)),
        ("vanishing", Segment("attention", "multiply", "Bmm", 1e-4, 1.0)),  # a matrix product has no gates
        ("vanishing", Segment("glu", "multiply", "Mul", 0.9, 1.0)),
        ("vanishing", Segment("fc", "weight", "Addmm", 1e-4, 1.0)),
    ],
)
def test_what_is_no_closed_gate(rule: str, segment: Segment) -> None:
    assert explain(rule, *[segment] * 3) is None
