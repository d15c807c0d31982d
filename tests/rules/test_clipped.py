from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, History, Severity, rules
from gradwatch.rules import Clipped
from tests.histories import INF, NAN, Run, healthy, history_of, layers, noisy, stats


def clipped(steps: int = 40, at: float = 1.0, rounding: float = 1e-7, seed: int = 0) -> Run:
    """Ordinary steps of three layers, each step scaled to a total norm of ``at`` but for rounding."""
    rng = np.random.default_rng(seed)
    rows = np.array([list(step.values()) for step in noisy(steps, seed)], np.float64)
    totals = at * (1 + rounding * rng.uniform(-1.0, 1.0, steps))
    return [layers(row) for row in (rows / np.linalg.norm(rows, axis=1, keepdims=True) * totals[:, None]).tolist()]


def check(run: Any, rule: Clipped | None = None) -> list[Alert]:
    return list((rule or Clipped()).check(history_of(run)))


def test_it_says_once_what_is_seen_and_what_to_do() -> None:
    (alert,) = check(noisy(10) + clipped(400, at=0.5))
    assert (alert.step, alert.rule, alert.layer, alert.severity) == (29, "clipped", None, Severity.INFO)
    assert alert.message == (
        "you are looking at clipped gradients: the total norm stayed at 0.5 for 20 steps; call monitor.step() before "
        "your clipping, or clip with monitor.clip_grad_norm_()"
    )
    assert 0 < alert.value <= 2e-7 < alert.threshold == 2e-3


def test_a_total_that_is_the_same_to_the_last_bit_is_said_once() -> None:
    run = [layers([3.0, 4.0]), layers([4.0, 3.0])] * 20
    (alert,) = check(run)
    assert (alert.step, alert.value) == (19, 0.0)


@pytest.mark.parametrize(
    ("rounding", "steps"),
    [(0.0, [19]), (1e-6, [19]), (9e-4, [19]), (3e-3, [])],
    ids=["exact", "float32", "float16", "more than rounding"],
)
def test_the_total_may_change_by_rounding(rounding: float, steps: list[int]) -> None:
    assert [alert.step for alert in check(clipped(60, rounding=rounding))] == steps


CONSTANT = layers([0.6, 0.8])


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ([CONSTANT] * 60, "nothing changes at all"),
        ([layers([0.6 + 2e-4 * i % 9e-3, 0.8]) for i in range(60)], "the shares hardly change"),
        ([{"fc": 1.0}] * 60, "one layer always has all of it"),
        ([layers([0.6, None]), layers([None, 0.6])] * 30, "two networks by turns, each constant"),
        ([layers([0.0, 0.0])] * 60, "there is no gradient to clip"),
        (clipped(19), "too few steps"),
        ([], "no step"),
    ],
)
def test_what_is_not_clipped(run: Run, why: str) -> None:
    assert check(run) == [], why


def test_a_smooth_run_that_passes_a_peak_of_its_total_is_not_clipped() -> None:
    """Around its peak the total hardly changes, while the shares drift on."""
    total = 1 - 1e-5 * (np.arange(200.0) - 100) ** 2
    angle = np.pi / 4 + 1e-3 * np.arange(200)
    norms = total[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    around = slice(90, 110)
    assert np.ptp(total[around]) < Clipped.tolerance
    assert np.ptp(np.sin(angle[around])) > Clipped.change
    assert check([layers(row) for row in norms.tolist()]) == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_steps_that_are_clipped_now_and_then_say_nothing(share: float) -> None:
    """Every ``1 / (1 - share)``-th step stays below the limit."""
    every = round(1 / (1 - share))
    free = noisy(200, seed=1)
    run = [free[i] if i % every == 0 else step for i, step in enumerate(clipped(200))]
    assert check(run) == []


def test_stretches_of_clipped_steps_are_one_episode() -> None:
    run = (clipped(30) + noisy(5)) * 8
    assert [alert.step for alert in check(run)] == [19]
    free = [layers([1.0 + i, 1.0, 1.0]) for i in range(100)]
    apart = clipped(30) + free + clipped(30)
    assert [alert.step for alert in check(apart)] == [19, 149]
    assert [alert.step for alert in check(apart, Clipped(recovery=200))] == [19]


@pytest.mark.parametrize("value", [NAN, INF])
def test_what_is_not_finite_is_left_out(value: float) -> None:
    run = clipped(30)
    for i in (3, 7, 20, 21):
        run[i] = layers([1.0, value, 1.0])
    assert [alert.step for alert in check(run)] == [24]  # the first look at 20 finite steps


def test_a_step_that_the_scaler_skips_is_left_out() -> None:
    skipped = stats(7, layers([5.0, INF, 5.0]), skipped=True), stats(8, layers([5.0, 6.0, 5.0]), skipped=True)
    run = clipped(30)
    assert [alert.step for alert in check([*run[:7], *skipped, *run[9:]])] == [24]


def test_two_networks_by_turns_with_one_limit() -> None:
    """Each record has the gradients of one optimizer only."""
    both = clipped(40)
    run = [{name: None if (name == "fc2") == bool(i % 2) else 1.0 for name in step} for i, step in enumerate(both)]
    rows = [{name: n and n * both[i][name] for name, n in step.items()} for i, step in enumerate(run)]
    totals = [np.linalg.norm([n for n in row.values() if n]) for row in rows]
    scaled = [{name: n and n / t for name, n in row.items()} for row, t in zip(rows, totals)]
    assert [alert.step for alert in check(scaled)] == [19]


def test_window_tolerance_and_change_are_the_limits() -> None:
    run = clipped(40, rounding=1e-4)
    assert [alert.step for alert in check(run, Clipped(window=30))] == [29]
    assert check(run, Clipped(tolerance=1e-5)) == []
    assert check(run, Clipped(change=0.9)) == []


@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_are_not_clipped(seed: int) -> None:
    assert check(healthy(seed=seed)) == []


def test_a_monitor_gives_it_no_memory_of_another_run() -> None:
    mine = Clipped()
    assert [alert.step for alert in check(clipped(30), mine)] == [19]
    (fresh,) = rules.fresh([mine])
    assert fresh == mine
    assert [alert.step for alert in check(clipped(30), fresh)] == [19]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"window": 1}, ValueError, "Clipped: window must be a whole number from 2, got 1"),
        ({"recovery": 0}, ValueError, "Clipped: recovery must be a whole number from 1, got 0"),
        ({"tolerance": 0.0}, ValueError, r"Clipped: tolerance must be above 0, got 0\.0"),
        ({"change": -1.0}, ValueError, r"Clipped: change must be above 0, got -1\.0"),
        ({"change": "1"}, TypeError, "Clipped: change must be a number, got '1'"),
        ({"tolerance": {"*": 0.1}}, TypeError, "Clipped: tolerance must be a number, got"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Clipped(**arguments)


def test_a_history_that_is_shorter_than_the_window_waits() -> None:
    history = History(window=10)
    for i, step in enumerate(clipped(60)):
        history.append(stats(i, step))
        assert Clipped().check(history) == []
