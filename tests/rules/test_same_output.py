from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import SameOutput
from tests.histories import NAN, StepStats, layers, stats, told_by
from tests.tensors import normal


def run(variation: list[float], output: float, left: float = NAN, first: float | None = None) -> list[StepStats]:
    """Of a look at every tenth step; at the first one the output may differ more."""
    return [
        stats(
            i,
            layers([1.0] * len(variation)),
            variation=np.array(variation),
            output_variation=first if i == 0 and first is not None else output,
            output_error=left,
        )
        for i in range(0, 250, 10)
    ]


def test_the_first_layer_that_is_given_the_same_is_named() -> None:
    (alert,) = told_by(SameOutput(), run([0.0, NAN, 1e-9], 1e-7))
    assert (alert.step, alert.layer, alert.severity) == (200, "fc0", Severity.WARNING)
    assert alert.message == "fc0: what it is given is the same for every example, and so is the model's output"
    (alert,) = told_by(SameOutput(), run([0.5, NAN, 0.0, 0.0], 0.0))
    assert alert.layer == "fc2"
    assert alert.message.endswith("so is the model's output; what fc0 is given differs")


def test_where_nothing_is_learned_it_is_an_error() -> None:
    steps = [*run([0.0, 0.0], 0.0, left=1.0)]
    steps = [stats(10 * i, layers([1.0, 1.0]), **look(s)) for i, s in enumerate(steps * 10)]
    assert [a.severity for a in told_by(SameOutput(), steps)] == [Severity.WARNING, Severity.ERROR]


def look(s: StepStats) -> dict[str, object]:
    return {"variation": s.variation, "output_variation": s.output_variation, "output_error": s.output_error}


@pytest.mark.parametrize(
    ("variation", "output"),
    [
        ([0.5, 0.1], 1e-9),  # targets that hardly differ: 1e4 and something
        ([0.0, 0.0], 1e-5),
        ([NAN, NAN], 0.0),
        ([0.0, 0.0], NAN),
        ([0.0, 1e-5], 0.0),
        ([0.1, 1e-3, 1e-5, 1e-7], 0.0),  # it fades
    ],
)
def test_what_differs_or_is_not_known(variation: list[float], output: float) -> None:
    assert told_by(SameOutput(), run(variation, output)) == []


def test_what_differed_before_has_been_learned() -> None:
    assert told_by(SameOutput(), run([0.0, 0.0], 0.0, first=0.1)) == []


def test_what_training_has_made_the_same_is_an_error_where_nothing_is_learned() -> None:
    first, same, *_ = run([0.9, 0.0], 0.0, left=1.0, first=0.1)
    steps = [replace(same if i else first, step=i) for i in range(150)]
    (alert,) = told_by(SameOutput(), steps)
    assert (alert.step, alert.layer, alert.severity) == (99, "fc1", Severity.ERROR)
    dead = [replace(s, given_nothing=np.array([0.0, 1.0])) for s in steps]
    assert told_by(SameOutput(), dead) == []  # for another rule


def test_the_first_steps_may_begin_at_zero() -> None:
    assert told_by(SameOutput(), run([0.0, 0.0], 0.0)[:20]) == []


class Mean(nn.Module):
    """Over the batch, by mistake."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0, keepdim=True).expand_as(x)


def train(between: nn.Module, scale: float = 1.0) -> gw.Monitor:
    torch.manual_seed(0)
    x = normal(256, 8)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(8, 32), between, nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for i in range(220):
            batch = torch.arange(i, i + 64) % 256
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(scale * x[batch]), y[batch]).backward()
            optimizer.step()
    return monitor


def test_a_mean_over_the_batch() -> None:
    monitor = train(Mean())
    assert [(a.rule, a.layer, a.severity) for a in monitor.alerts] == [
        ("same_output", "3", Severity.WARNING),
        ("same_output", "3", Severity.ERROR),
    ]
    (found,) = monitor.report().diagnoses
    assert (found.cause, found.layers) == ("same_output", ("3",))
    assert found.evidence == (
        "since the run began, of layer 3: what it is given is the same for every example, and so is the model's output",
    )
    assert found.remedy.startswith("look at what happens to the examples before layer 3: a mean over the batch")


def test_data_that_are_zero() -> None:
    monitor = train(nn.Identity(), scale=0.0)
    assert "same_output" in {a.rule for a in monitor.alerts if a.severity is Severity.ERROR}
    found = monitor.report().diagnoses[0]
    assert found.remedy == "look at the data as layer 0 is given them, and at what is done with them before"


def test_data_that_differ() -> None:
    assert train(nn.Identity()).alerts == []
