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
    """300 steps, of which these are looked at: the share of the scatter, and of the offset."""
    seen = {step: {"output_scatter": s, "output_offset": o, "output_error": left} for step, s, o in looks}
    return [stats(i, STEP, **seen.get(i, {})) for i in range(300)]


def test_outputs_that_are_noise() -> None:
    (alert,) = told_by(OffTarget(), run((100, 0.9, 0.0), (150, 0.8, 0.0)))
    assert (alert.step, alert.layer, alert.severity, alert.value) == (150, "out", Severity.WARNING, 0.8)
    assert alert.message == (
        "out: 80% of the squared error is the scatter of the outputs themselves, which does not follow the targets"
    )


@pytest.mark.parametrize(("later", "is_error"), [(0.9, True), (0.83, True), (0.81, False), (0.6, False)])
def test_an_error_where_it_has_not_gone_down_to_half_in_a_hundred_steps(later: float, is_error: bool) -> None:
    found = told_by(OffTarget(), run((100, 0.9, 0.0), (150, 0.9, 0.0), (200, later, 0.0)))  # 9 times the targets'
    assert [(a.step, a.severity) for a in found] == [(150, Severity.WARNING), (200, Severity.ERROR)][: 1 + is_error]


@pytest.mark.parametrize(("left", "is_error"), [(0.99, True), (0.9, False)])
def test_outputs_that_lie_far_to_one_side(left: float, is_error: bool) -> None:
    looks = [(100, 0.0, 0.95), (150, 0.0, 0.95), (200, 0.0, 0.96), (250, 0.0, 0.96)]
    found = told_by(OffTarget(), run((1, 0.0, 0.95), *looks, left=left))
    assert [(a.step, a.severity) for a in found] == [(150, Severity.WARNING), (200, Severity.ERROR)][: 1 + is_error]
    assert found[0].message.startswith("out: 95% of the squared error is common to all examples")


@pytest.mark.parametrize(
    "looks",
    [
        [(1, 0.9, 0.99), (50, 0.9, 0.99), (100, 0.9, 0.99)],  # so it begins
        [(100, 0.4, 0.6), (150, 0.4, 0.6)],
        [(100, 0.9, 0.0), (150, 0.1, 0.0), (200, 0.9, 0.0)],
        [(100, NAN, NAN), (150, NAN, NAN)],
    ],
)
def test_what_is_early_or_little_or_not_known(looks: list[tuple[int, float, float]]) -> None:
    assert told_by(OffTarget(), run(*looks)) == []


def test_it_recovers_in_silence_and_is_told_again() -> None:
    rule = OffTarget()
    found = told_by(rule, run((100, 0.9, 0.0), (150, 0.9, 0.0), (180, 0.1, 0.0), (200, 0.9, 0.0), (250, 0.9, 0.0)))
    assert [(a.step, a.severity) for a in found] == [(150, Severity.WARNING), (250, Severity.WARNING)]


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
        for i in range(260):
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
