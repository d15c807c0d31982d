from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch.diagnosis import WeightDecay
from gradwatch.profile import BackwardProfile, Weight


def report(weight_decay: float, scale: float = 1.0, first: int = 0) -> gw.Report:
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(16, 16), nn.ReLU())], nn.Linear(16, 3))
    for p in model.parameters():
        p.data *= scale
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=weight_decay)
    with gw.Monitor(model, optimizer=optimizer, sinks=()) as monitor:
        for step in range(first, first + 120):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(64, 16)), torch.randint(0, 3, (64,))).backward()
            monitor.step(step)
            optimizer.step()
        return monitor.report()


@pytest.mark.parametrize("first", [0, 100_000])
def test_weights_that_have_shrunk(first: int) -> None:
    """Without a gradient to speak of, each step multiplies the weights by 1 - lr * weight_decay."""
    found = report(weight_decay=0.5, first=first)
    assert {a.rule for a in found.alerts} == {"vanishing", "shrinking"}
    first = found.diagnoses[0]
    assert (first.cause, first.change, first.remedy) == (
        "weight_decay",
        "weight_decay",
        "divide the optimizer's weight_decay by 100, or leave it out; likewise a penalty in the loss",
    )
    assert "small_weights" not in {d.cause for d in found.diagnoses}
    assert float(first.evidence[0].split(": ")[1].split("%")[0]) == pytest.approx(5.0, abs=0.3)


def test_weights_that_were_small_from_the_start() -> None:
    assert report(weight_decay=0.0, scale=0.05).diagnoses[0].cause == "small_weights"


def test_weights_that_were_small_beside_large_biases_did_not_shrink() -> None:
    """The size of a layer at the first step is that of both; six steps later its weights are a hundredth of it."""
    stats = gw.History.from_grad_norms(fc0=[0.0], fc1=[0.0]).latest
    assert stats is not None
    history = gw.History()
    history.append(replace(stats, param_norm=np.array([4.0, 4.0])))
    alerts = [gw.Alert(6, "dead", "fc0", gw.Severity.ERROR, 0.0, 0.0, "")]
    for step, told in ((6, False), (100, True)):
        weights = tuple(Weight(f"fc{i}.weight", 0.04, 8, 8, 8) for i in (0, 1))
        found = WeightDecay().explain(history, BackwardProfile((), step=step, weights=weights), alerts)
        assert (found is not None) is told
