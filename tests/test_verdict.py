from __future__ import annotations

import math

import pytest

from gradwatch import History, Severity
from gradwatch.verdict import judge, name_layers
from tests.histories import history_of, stats

HISTORY = History.from_grad_norms(a=[1.0] * 3, b=[1.0] * 3)


def test_a_run_without_alerts_is_healthy() -> None:
    assert judge(HISTORY, {}, {}, {}) == ("healthy: 3 steps, 2 layers, no alert", Severity.INFO)


@pytest.mark.parametrize(("skipped", "words"), [(0, ""), (1, ", 1 step skipped"), (3, ", 3 steps skipped")])
def test_steps_that_a_gradient_scaler_skipped_are_counted(skipped: int, words: str) -> None:
    history = history_of([stats(i, {"a": 1.0, "b": 1.0}, skipped=2 <= i < 2 + skipped) for i in range(7)])
    size = f"7 steps, 2 layers{words}{' by the gradient scaler' if words else ''}"
    assert judge(history, {}, {}, {}) == (f"healthy: {size}, no alert", Severity.INFO)
    assert judge(history, {}, {"spike": 2}, {"spike": Severity.WARNING})[0] == (
        f"healthy now: {size}; earlier alerts: 2 x spike"
    )


def test_steps_skipped_long_ago_still_count() -> None:
    history = history_of([stats(i, {"a": 1.0}, skipped=i < 2) for i in range(9)], window=3)
    assert (
        judge(history, {}, {}, {})[0] == "healthy: 9 steps, 1 layer, 2 steps skipped by the gradient scaler, no alert"
    )


def test_what_is_going_on_comes_worst_first() -> None:
    worst = {"dead": Severity.WARNING, "nonfinite": Severity.ERROR}
    ongoing = {"dead": ("a",), "nonfinite": ("a", "b")}
    verdict, severity = judge(HISTORY, ongoing, {"dead": 1, "nonfinite": 1}, worst)
    assert verdict == "nonfinite: a, b (2 of 2 layers); dead: a (1 of 2 layers)"
    assert severity is Severity.ERROR


def test_what_is_over_does_not_make_a_run_ill() -> None:
    worst = {"spike": Severity.WARNING, "nonfinite": Severity.ERROR}
    verdict, severity = judge(HISTORY, {}, {"spike": 2, "nonfinite": 1}, worst)
    assert verdict == "healthy now: 3 steps, 2 layers; earlier alerts: 2 x spike, 1 x nonfinite"
    assert severity is Severity.INFO


def test_a_past_error_of_another_rule_is_not_the_severity_now() -> None:
    worst = {"nonfinite": Severity.ERROR, "dead": Severity.WARNING}
    assert judge(HISTORY, {"dead": ("a",)}, {"nonfinite": 1, "dead": 1}, worst)[1] is Severity.WARNING


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "the whole model"),
        (["a"], "a (1 of 9 layers)"),
        (["a", "b", "c"], "a, b, c (3 of 9 layers)"),
        (["a", "b", "c", "d"], "a, b, c, ... (4 of 9 layers)"),
    ],
)
def test_layers_in_words(names: list[str], expected: str) -> None:
    assert name_layers(names, of=9) == expected


@pytest.mark.parametrize(("with_gradient", "without", "told"), [(0, 3, True), (5, 19, False), (5, 20, True)])
def test_a_run_without_gradients_is_not_healthy(with_gradient: int, without: int, told: bool) -> None:
    history = History.from_grad_norms(a=[1.0] * with_gradient + [None] * without)
    verdict, severity = judge(history, {}, {}, {})
    words = (
        f"no layer had a gradient in the last {without} steps: is the loss detached, is zero_grad() called between "
        "backward() and step(), or are the optimizer's parameters those of another model?"
    )
    assert (verdict == words) == told
    assert (severity is Severity.WARNING) == told


@pytest.mark.parametrize(
    ("count", "left", "more"),
    [
        (201, 0.98, "; but 98% of the outputs' error is left (step 200)"),
        (201, 0.9, ""),
        (200, 0.98, ""),
        (201, math.nan, ""),
    ],
)
def test_of_a_run_without_alerts_it_is_told_that_nothing_was_learned(count: int, left: float, more: str) -> None:
    history = History()
    for step in range(count):
        looked = {"output_error": 1.0 if step < 100 else left} if step % 100 == 0 else {}
        history.append(stats(step, {"fc": 1.0}, **looked))
    what = "healthy gradients" if more else "healthy"
    assert judge(history, {}, {}, {})[0] == f"{what}: {count} steps, 1 layer, no alert{more}"
    now, _ = judge(history, {}, {"spike": 2}, {"spike": Severity.WARNING})
    assert now == f"{what} now: {count} steps, 1 layer; earlier alerts: 2 x spike{more}"
