from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity, StepStats
from gradwatch.rules import Stalled
from tests.histories import LOOK, NAN, history_of, layers, slow, stats

RULE = Stalled()


def run(updates: dict[int, float], steps: int = 200, norm: float = 1.0) -> list[StepStats]:
    return [
        stats(i, layers([norm, None]), **({"total_update": updates[i]} if i in updates else {})) for i in range(steps)
    ]


def check(steps: list[StepStats]) -> list[gw.Alert]:
    rule, history = Stalled(), gw.History()
    found: list[gw.Alert] = []
    for step in steps:
        history.append(step)
        found += rule.check(history)
    return found


@pytest.mark.parametrize(
    ("updates", "expected"),
    [
        ({1: 0.0, 101: 0.0}, [(101, Severity.ERROR)]),
        ({1: 1e-8, 101: 2e-8}, [(101, Severity.ERROR)]),  # below the rounding of float32
        ({1: 1e-7, 101: 2e-7}, [(101, Severity.WARNING)]),
        ({1: 0.0, 101: 1e-3}, []),  # a schedule that begins at zero
        ({1: 1e-3, 101: 0.0}, []),  # converged
        ({1: 0.0, RULE.warmup - 1: 0.0}, []),
        ({1: NAN, 101: NAN}, []),
        ({1: 1e-7, 101: 1e-7, 151: 1e-3}, [(101, Severity.WARNING), (151, Severity.INFO)]),
    ],
)
def test_what_no_step_has_moved(updates: dict[int, float], expected: list[tuple[int, Severity]]) -> None:
    assert [(a.step, a.severity) for a in check(run(updates))] == expected


@pytest.mark.parametrize(("left", "raised"), [(0.99, True), (0.9, False), (NAN, False)])
def test_a_warning_becomes_an_error_where_nothing_was_learned(left: float, raised: bool) -> None:
    still = {"total_update": 1e-7}
    steps = slow(layers([1.0, None]), left, start=still, later=still)
    steps[120] = replace(steps[120], total_update=1e-7)
    found = check(steps)
    assert [(a.step, a.severity) for a in found] == [(120, Severity.WARNING), (LOOK, Severity.ERROR)][: 1 + raised]
    assert found[-1].message.endswith("1e-07 of their size" + "; 99% of the outputs' error is left" * raised)


@pytest.mark.parametrize(
    ("lefts", "updates", "steps"),
    [
        ((0.99, 0.98), (0.0, 0.0), [221]),  # a schedule that has come to its end
        ((0.99, 0.98), (0.0, 1e-4), []),
        ((0.99, 0.98), (5e-6, 5e-6), []),  # not so early
        ((0.5, 0.5), (0.0, 0.0), []),  # it has learned
        ((0.99, 0.8), (0.0, 0.0), []),
        ((NAN, NAN), (0.0, 0.0), []),
    ],
)
def test_steps_that_have_come_to_nothing_where_nothing_was_learned(
    lefts: tuple[float, float], updates: tuple[float, float], steps: list[int]
) -> None:
    run = slow(layers([1.0, None]), lefts[1], start={"total_update": 1e-3}, before=lefts[0])
    first, second = (
        stats(step, layers([1.0, None]), total_update=u) for step, u in zip((LOOK - 50, LOOK + 1), updates)
    )
    run = [*(first if step.step == LOOK - 50 else step for step in run), second]
    found = check(run)
    assert [(a.step, a.severity) for a in found] == [(step, Severity.ERROR) for step in steps]
    assert all(
        a.message.endswith("no step lately has changed the weights at all; 98% of the outputs' error is left")
        for a in found
    )


def long_run(updates: Callable[[int], float], **looked: Any) -> list[StepStats]:
    """1,000 steps of two layers, looked at every hundred; what each step moves by its number."""
    run = []
    for i in range(1000):
        look = {"output_gradient": 0.5, **looked} if i < 16 or i % 100 == 0 else {}
        moved = {"total_update": updates(i)} if 0 < i < 17 or i % 100 == 1 else {}
        run.append(stats(i, layers([1.0, 1.0]), **look, **moved))
    return run


@pytest.mark.parametrize(("update", "found"), [(5e-6, 1), (5e-5, 0)])
def test_in_a_long_run_steps_may_be_less_small(update: float, found: int) -> None:
    run = [replace(step, output_gradient=0.5 + i % 2 / 100) for i, step in enumerate(long_run(lambda step: update))]
    assert [(a.step, a.severity) for a in check(run)] == [(201, Severity.WARNING), (501, Severity.ERROR)] * found


@pytest.mark.parametrize(
    ("updates", "looked", "found"),
    [
        (lambda step: 5e-5, {}, True),
        (lambda step: 2e-4, {}, False),
        (lambda step: max(1e-3 * (step < 50), 5e-5), {}, False),  # others were larger
        (lambda step: 1e-7 * (step + 1), {}, False),  # a learning rate that is warmed up
        (lambda step: 5e-5, {"output_error": 0.9}, False),
        (lambda step: 5e-5, {"zero_fraction": np.array([0.4, 0.8]), "numel": np.array([10.0, 11.0])}, True),
        (lambda step: 5e-5, {"zero_fraction": np.array([0.4, 0.95]), "numel": np.array([10.0, 10.0])}, True),
        (lambda step: 5e-5, {"zero_fraction": np.array([0.4, 0.95]), "numel": np.array([10.0, 11.0])}, False),  # table
    ],
)
def test_slow_steps_of_a_cross_entropy_that_teaches_nothing(
    updates: Callable[[int], float], looked: dict[str, Any], found: bool
) -> None:
    alerts = check(long_run(updates, **{"output_error": 0.99, **looked}))
    assert [(a.step, a.severity) for a in alerts] == [(201, Severity.WARNING), (501, Severity.ERROR)] * found
    text = "no step so far has changed the weights by more than 5e-05 of their size; 99% of the outputs' error is left"
    assert all(a.message.endswith(text) for a in alerts)


def test_slow_steps_that_become_larger_are_a_recovery() -> None:
    alerts = check(long_run(lambda step: 5e-5 if step < 350 else 1e-3, output_error=0.99))
    assert [(a.step, a.severity) for a in alerts] == [(201, Severity.WARNING), (401, Severity.INFO)]


def test_without_a_gradient_there_is_nothing_to_move() -> None:
    assert check(run({1: 0.0, 101: 0.0}, norm=0.0)) == []


def test_one_check_of_all_is_one_of_each_step() -> None:
    assert Stalled().check(history_of(run({1: 0.0}))) == []


def train(lr: float, dtype: torch.dtype = torch.float32) -> gw.Report:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with gw.watch(model, optimizer, histogram_every_n_steps=60, sinks=()) as monitor:
        for _ in range(65):
            optimizer.zero_grad()
            model(torch.randn(16, 4, dtype=dtype)).square().mean().backward()
            optimizer.step()
        return monitor.report()


def test_a_learning_rate_that_is_far_too_low() -> None:
    report = train(2e-6)
    assert [(a.step, a.rule, a.severity) for a in report.alerts] == [(51, "stalled", Severity.WARNING)]
    assert (report.diagnoses[0].cause, report.diagnoses[0].change) == ("small_steps", "lr")
    assert train(2e-6 * float(report.diagnoses[0].remedy.split()[-1])).alerts == ()


@pytest.mark.parametrize(("lr", "dtype"), [(0.0, torch.float32), (1e-6, torch.bfloat16)])
def test_steps_that_change_nothing(lr: float, dtype: torch.dtype) -> None:
    report = train(lr, dtype)
    assert {(a.rule, a.severity) for a in report.alerts} == {("stalled", Severity.ERROR)}
    assert "no step so far has changed the weights at all" in report.diagnoses[0].evidence[0]
    assert report.diagnoses[0].change == ""


def alone(norm: float, ratio: float, later: float | None = None, steps: int = 320) -> list[gw.Alert]:
    """Of a layer beside another that moves, each with its gradient; measured at every hundredth step."""
    found = []
    for i in range(steps):
        measured = {
            "update_ratio": np.array([ratio if later is None or i < 250 else later, 1e-3]),
            "total_update": 1e-3,
        }
        found.append(stats(i, layers([norm, 1.0]), **(measured if i % 100 == 1 else {})))
    return check(found)


@pytest.mark.parametrize("ratio", [0.0, 1e-12, 9e-8])
def test_a_layer_that_no_step_moves_while_others_move(ratio: float) -> None:
    (alert,) = alone(1.0, ratio)
    assert (alert.step, alert.layer, alert.severity, alert.value) == (101, "fc0", Severity.WARNING, 0.0)
    assert alert.message == (
        "fc0: steps have changed these weights by nothing, or less than 0.01% of what they changed all by"
    )
    assert [a.severity for a in alone(1.0, ratio, later=1e-3)] == [Severity.WARNING, Severity.INFO]


@pytest.mark.parametrize(("norm", "ratio"), [(1e-3, 0.0), (0.0, 0.0), (NAN, 0.0), (1.0, 2e-7), (1.0, NAN)])
def test_a_layer_without_a_good_part_of_the_gradient_or_that_moves_a_little(norm: float, ratio: float) -> None:
    assert alone(norm, ratio) == []


def test_a_table_of_which_few_rows_are_touched_may_look_as_if_it_did_not_move() -> None:
    zeros = {"zero_fraction": np.array([0.95, 0.0])}
    measured = {"update_ratio": np.array([0.0, 1e-3]), "total_update": 1e-3}
    run = [
        stats(i, layers([1.0, 1.0]), **(measured if i % 100 == 1 else zeros if i % 100 == 0 else {}))
        for i in range(320)
    ]
    assert check(run) == []


def test_a_parameter_group_with_a_learning_rate_of_zero() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(120):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), x.prod(1, keepdim=True)).backward()
            optimizer.step()
    assert [(a.rule, a.layer) for a in monitor.alerts] == [("stalled", "0")]


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^Stalled: low must be "):
        Stalled(low=-1.0)
    with pytest.raises(ValueError, match=r"^Stalled: warmup must be "):
        Stalled(warmup=-1)
