from __future__ import annotations

import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import OffTarget
from tests.histories import NAN, StepStats, stats, told_by
from tests.tensors import normal

STEP = {"fc": 1.0, "out": 1.0}


def run(*looks: tuple[int, float, float], left: float = NAN) -> list[StepStats]:
    """301 steps, of which these are looked at: the share of the scatter, and of the offset."""
    seen = {step: {"output_scatter": s, "output_offset": o, "output_error": left} for step, s, o in looks}
    return [stats(i, STEP, **seen.get(i, {})) for i in range(301)]


def test_outputs_that_are_noise() -> None:
    (alert,) = told_by(OffTarget(), run((100, 0.9, 0.0), (150, 0.85, 0.0), (200, 0.8, 0.0)))
    assert (alert.step, alert.layer, alert.severity, alert.value) == (200, "out", Severity.WARNING, 0.8)
    assert alert.message == (
        "out: 80% of the squared error is the scatter of the outputs themselves, which does not follow the targets"
    )


@pytest.mark.parametrize(("at_200", "at_300", "told"), [(0.9, 0.9, 2), (0.9, 0.8, 1), (0.75, 0.7, 1), (0.65, 0.9, 0)])
def test_noise_that_goes_down(at_200: float, at_300: float, told: int) -> None:
    # From 9 times the targets' variance: to a quarter it is none, and from a half on no ERROR.
    found = told_by(OffTarget(), run((100, 0.9, 0.0), (150, 0.9, 0.0), (200, at_200, 0.0), (300, at_300, 0.0)))
    assert [(a.step, a.severity) for a in found] == [(200, Severity.WARNING), (300, Severity.ERROR)][:told]


@pytest.mark.parametrize(("left", "severities"), [(0.99, [1, 2]), (0.93, [1]), (0.85, [])])
def test_outputs_that_lie_far_to_one_side(left: float, severities: list[int]) -> None:
    looks = [(100, 0.0, 0.95), (150, 0.0, 0.95), (200, 0.0, 0.96), (300, 0.0, 0.96)]
    found = told_by(OffTarget(), run((1, 0.0, 0.95), *looks, left=left))
    assert [(a.step, a.severity) for a in found] == list(zip([200, 300], severities))
    assert all(a.message.startswith("out: 96% of the squared error is common to all examples") for a in found)


@pytest.mark.parametrize(
    "looks",
    [
        [(1, 0.9, 0.99), (50, 0.9, 0.99), (100, 0.9, 0.99)],  # so it begins
        [(100, 0.4, 0.6), (150, 0.4, 0.6), (200, 0.4, 0.6)],
        [(100, 0.9, 0.0), (150, 0.1, 0.0), (200, 0.9, 0.0)],
        [(100, NAN, NAN), (150, NAN, NAN), (200, NAN, NAN)],
    ],
)
def test_what_is_early_or_little_or_not_known(looks: list[tuple[int, float, float]]) -> None:
    assert told_by(OffTarget(), run(*looks, left=0.99)) == []


def test_it_recovers_in_silence_and_is_told_again() -> None:
    noise = [(step, 0.9, 0.0) for step in (100, 150, 200, 250, 270, 290)]
    found = told_by(OffTarget(), run(*noise[:3], (220, 0.1, 0.0), *noise[3:]))
    assert [(a.step, a.severity) for a in found] == [(200, Severity.WARNING), (290, Severity.WARNING)]


@pytest.mark.parametrize(("argument", "value"), [("scatter", 0.0), ("offset", 1.5), ("warmup", -1)])
def test_limits_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"OffTarget: {argument} must be"):
        OffTarget(**{argument: value})


def train(inputs: float = 1.0, targets: float = 1.0, offset: float = 0.0) -> gw.Monitor:
    torch.manual_seed(0)
    x = normal(256, 8)
    y = (x[:, :1] * x[:, 1:2] + x[:, 2:3]) * targets + offset
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for i in range(310):
            batch = torch.arange(32 * i, 32 * i + 32) % 256
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[batch] * inputs), y[batch]).backward()
            optimizer.step()
    return monitor


def test_targets_in_small_units() -> None:
    monitor = train(targets=1e-3)
    assert {a.rule for a in monitor.alerts} == {"off_target"}
    found = monitor.report().diagnoses[0]
    assert (found.cause, found.change) == ("unscaled_targets", "data_scaling")
    assert "is the scatter of the outputs themselves" in found.evidence[0]


def test_targets_far_from_zero() -> None:
    monitor = train(offset=300.0)
    assert [(a.rule, a.severity) for a in monitor.alerts] == [
        ("off_target", Severity.WARNING),
        ("off_target", Severity.ERROR),
    ]
    assert monitor.report().diagnoses[0].cause == "unscaled_targets"


def test_targets_of_one_size() -> None:
    assert train().alerts == []
