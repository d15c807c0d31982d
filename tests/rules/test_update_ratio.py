from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, History, Severity
from gradwatch.rules import UpdateRatio
from tests.histories import INF, LOOK, NAN, history_of, layers, slow, stats, told_by


def check(rule: UpdateRatio, *ratios: tuple[float, float] | None) -> list[Alert]:
    """What ``rule`` says of these update ratios of two layers from step 1 on; None where none was measured."""
    history = History.from_grad_norms(a=[1.0], b=[1.0])
    found = list(rule.check(history))
    for step, ratio in enumerate(ratios, 1):
        assert history.latest is not None
        history.append(replace(history.latest, step=step, update_ratio=None if ratio is None else np.array(ratio)))
        found += rule.check(history)
    return found


def test_a_step_that_is_too_large_is_told_with_its_recovery() -> None:
    found = check(UpdateRatio(), (0.9, 1e-3), None, None, (0.9, 1e-3), None, (1e-3, 1e-3))
    assert [(a.step, a.layer, a.severity) for a in found] == [(1, "a", Severity.ERROR), (6, "a", Severity.INFO)]
    assert found[0].message == "a: a step changed the weights by 90% of their size"
    assert found[1].message == "a: recovered from update_ratio after 5 steps, update ratio now 0.001"


@pytest.mark.parametrize(("ratio", "alerts"), [(0.5, 0), (0.61, 1), (NAN, 0), (float("inf"), 1), (0.0, 0)])
def test_the_limit_is_exclusive_and_unknown_is_not_judged(ratio: float, alerts: int) -> None:
    assert len(check(UpdateRatio(), (ratio, 1e-3))) == alerts


def test_a_step_that_is_too_small_where_it_is_asked_for() -> None:
    (alert,) = check(UpdateRatio(low={"b": 1e-6}), (1e-9, 1e-9))
    assert (alert.layer, alert.value, alert.threshold) == ("b", 1e-9, 1e-6)


def test_patience_counts_measurements() -> None:
    assert [alert.step for alert in check(UpdateRatio(patience=2), (0.9, 0.1), None, (0.9, 0.1))] == [3]
    assert check(UpdateRatio(patience=2), (0.9, 0.1), None, (0.1, 0.1), (0.9, 0.1)) == []


@pytest.mark.parametrize(("of_all", "alerts"), [(0.5, 0), (0.61, 1), (NAN, 1)])
def test_a_single_layer_may_move_far_where_all_together_do_not(of_all: float, alerts: int) -> None:
    history, ratio = History.from_grad_norms(a=[1.0], b=[1.0]), np.array([2.0, 1e-3])
    history.append(replace(history.latest, step=1, update_ratio=ratio, total_update=of_all))  # type: ignore[type-var]
    assert [a.layer for a in UpdateRatio().check(history)] == ["a"] * alerts


@pytest.mark.parametrize(("growth", "steps"), [(1.0, []), (1.1, []), (1.2, [3]), (2.0, [3])])
def test_of_a_single_layer_it_must_last_while_the_gradient_grows(growth: float, steps: list[int]) -> None:
    history, rule = history_of([{"fc": 1.0}]), UpdateRatio()
    found = list(rule.check(history))
    for step in range(1, 6):
        history.append(stats(step, {"fc": growth**step}, update_ratio=np.array([0.9]), total_update=0.9))
        found += rule.check(history)
    assert [a.step for a in found] == steps


def test_looks_at_which_no_step_was_measured_do_not_interrupt_that() -> None:
    """Later on they alternate: a sampled step, and the one that tells how far it moved."""
    history, rule = history_of([{"fc": 1.0}]), UpdateRatio()
    found = list(rule.check(history))
    for step in range(1, 8):
        looked = {"update_ratio": np.array([0.9]), "total_update": 0.9} if step % 2 else {"input_size": np.array([1.0])}
        history.append(stats(step, {"fc": 2.0**step}, **looked))
        found += rule.check(history)
    assert [a.step for a in found] == [5]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"high": 0}, ValueError, "UpdateRatio: high must be above 0, got 0"),
        ({"low": -1.0}, ValueError, "UpdateRatio: low must be at least 0, got -1.0"),
        ({"low": 0.5, "high": 0.5}, ValueError, "UpdateRatio: low=0.5 must be below high=0.5"),
        ({"path": 0.0}, ValueError, "UpdateRatio: path must be above 0, got 0.0"),
        ({"lasting": "long"}, TypeError, "UpdateRatio: lasting must be a number, got 'long'"),
        ({"high": "much"}, TypeError, "UpdateRatio: high must be a number, got 'much'"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        UpdateRatio(**arguments)


def test_limits_of_layers_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"UpdateRatio: low=0\.9 must be below high=0\.6, for 'head'"):
        UpdateRatio(low={"head": 0.9}).check_layers(("body", "head"))


@pytest.mark.parametrize(
    ("depth", "of_all", "steps"),
    [(4, [0.2, 0.1, 0.31], [3]), (4, [0.2, 0.1, 0.1], []), (3, [0.2] * 6, []), (4, [0.1] * 6, [])],
)
def test_a_deep_network_stands_less_and_not_twice(depth: int, of_all: list[float], steps: list[int]) -> None:
    history, rule = history_of([layers([1.0] * depth)]), UpdateRatio()
    found = list(rule.check(history))
    for step, total in enumerate(of_all, 1):
        history.append(stats(step, layers([1.0] * depth), update_ratio=np.full(depth, total), total_update=total))
        found += rule.check(history)
    assert [a.step for a in found if a.severity is Severity.ERROR] == steps


@pytest.mark.parametrize(
    ("time_ratio", "of_all", "steps"),
    [
        (0.5, [0.08, 0.33, 0.29, 0.26], [3]),
        (0.5, [0.03, 0.03, 0.02, 0.02], []),  # healthy: Adam at 0.01
        (NAN, [0.08, 0.33, 0.29, 0.26], []),  # nothing that goes through time
    ],
)
def test_a_recurrent_layer_is_as_deep_as_it_has_time_steps(
    time_ratio: float, of_all: list[float], steps: list[int]
) -> None:
    history, rule = history_of([layers([1.0, 1.0])]), UpdateRatio()
    found = list(rule.check(history))
    for step, total in enumerate(of_all, 1):
        seen = {"update_ratio": np.full(2, total), "total_update": total, "time_ratio": np.array([time_ratio, NAN])}
        history.append(stats(step, layers([1.0, 1.0]), **seen))
        found += rule.check(history)
    assert [a.step for a in found if a.severity is Severity.ERROR] == steps


@pytest.mark.parametrize(
    ("first", "later", "left", "message"),
    [
        (0.06, 1e-3, 0.9, "the first steps together changed the weights by 96% of their size, and 90% of the outputs'"),
        (0.06, 1e-3, 0.8, ""),  # it learns
        (0.06, 1e-3, NAN, ""),
        (0.04, 1e-3, 0.95, ""),
        (1e-3, 0.05, 0.9, "a step changed the weights by 5% of their size, and 90% of the outputs'"),
        (1e-3, 0.05, 0.8, ""),
        (1e-3, 0.03, 0.95, ""),
        (NAN, 0.05, 0.95, "a step changed the weights by 5% of their size, and 95% of the outputs'"),
        (INF, 1e-3, 0.95, "the first steps together changed the weights by"),
    ],
)
def test_large_steps_by_which_little_was_learned(first: float, later: float, left: float, message: str) -> None:
    step = layers([1.0, 1.0])
    run = slow(step, left, start={"total_update": first}, before=left)
    measured = stats(LOOK + 1, step, update_ratio=np.array([later / 2, later]), total_update=later)
    found = told_by(UpdateRatio(), [*run, measured])
    assert [(a.step, a.severity) for a in found if a.layer == "fc1"] == [(LOOK + 1, Severity.ERROR)] * bool(message)
    assert all(message in a.message for a in found)


@pytest.mark.parametrize(("norm", "before", "told"), [(1.0, 0.95, True), (13.0, 0.95, False), (1.0, 0.2, False)])
def test_a_step_that_leaves_a_plateau_or_begins_another_task(norm: float, before: float, told: bool) -> None:
    """What woke up makes a large step, and so does what was learned and is asked for something else."""
    *run, last = slow(layers([1.0, 1.0]), 0.95, before=before)
    last = stats(LOOK, layers([norm, norm]), output_error=0.95)
    measured = stats(LOOK + 1, layers([norm, norm]), update_ratio=np.full(2, 0.05), total_update=0.05)
    assert bool(told_by(UpdateRatio(), [*run, last, measured])) == told


W, E = Severity.WARNING, Severity.ERROR


@pytest.mark.parametrize(
    ("depth", "of_all", "told"),
    [
        (2, [1.5, 0.9, 0.6, 0.4], [(1, W)]),  # RMSprop
        (2, [0.4, 0.7, 0.3], [(2, E)]),  # grows
        (2, [0.9, 1.4, 0.3], [(1, W), (2, E)]),
        (2, [0.9, 1.3, 0.3], [(1, W)]),  # RMSprop, whose second gradient is the larger one
        (2, [0.9, 0.8, 0.85], [(1, W)]),
        (2, [0.5, 0.8, 0.7], [(2, E)]),
        (2, [0.9, 0.8, NAN], [(1, W)]),
        (2, [INF, 0.5], [(1, E)]),
        (4, [0.5, 0.4, 0.3], [(2, W)]),
        (4, [0.1, 0.2, 0.18], [(3, E)]),
    ],
)
def test_at_the_start_large_steps_that_shrink_are_a_warning(
    depth: int, of_all: list[float], told: list[tuple[int, Severity]]
) -> None:
    history, rule = history_of([layers([1.0] * depth)]), UpdateRatio()
    found = list(rule.check(history))
    for step, total in enumerate(of_all, 1):
        history.append(stats(step, layers([1.0] * depth), update_ratio=np.full(depth, total), total_update=total))
        found += rule.check(history)
    assert [(a.step, a.severity) for a in found if a.severity is not Severity.INFO] == told


def test_a_step_that_is_too_small_is_not_one_that_may_settle() -> None:
    fine = layers([1.0, 1.0])
    run = history_of([fine, stats(1, fine, update_ratio=np.full(2, 1e-6), total_update=1e-6)])
    assert [a.severity for a in UpdateRatio(low=1e-4).check(run)] == [E]


def test_after_the_start_a_large_step_is_an_error() -> None:
    fine = layers([1.0, 1.0])
    late = stats(100, fine, update_ratio=np.full(2, 0.7), total_update=0.7)
    assert [a.severity for a in UpdateRatio().check(history_of([fine] * 100 + [late]))] == [Severity.ERROR]


def test_of_a_single_layer_large_steps_are_no_sign() -> None:
    run = slow({"fc": 1.0}, 0.95, start={"total_update": 0.2})
    measured = stats(LOOK + 1, {"fc": 1.0}, update_ratio=np.array([0.2]), total_update=0.2)
    assert told_by(UpdateRatio(), [*run, measured]) == []


def test_later_it_stands_it_as_the_others() -> None:
    fine = layers([1.0] * 4)
    later = [stats(step, fine, update_ratio=np.full(4, 0.3), total_update=0.3) for step in range(30, 40)]
    assert UpdateRatio().check(history_of([fine] * 30 + later)) == []
