from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, Severity, StepStats, rules
from gradwatch.rules import Skipped
from tests.histories import INF, NAN, Step, healthy, history_of, layers, stats

FINE = layers([1.0, 1.0, 1.0])


def run(*parts: tuple[int, Step, bool]) -> list[StepStats]:
    """Steps, given as (how many, norms, skipped)."""
    steps = [(step, skipped) for count, step, skipped in parts for _ in range(count)]
    return [stats(i, step, skipped=skipped) for i, (step, skipped) in enumerate(steps)]


def check(steps: list[StepStats], rule: Any = None) -> list[Alert]:
    return list((rule or Skipped()).check(history_of(steps)))


OVERFLOW = "the gradient overflowed at this loss scale, the GradScaler skipped the step"


@pytest.mark.parametrize(
    ("norms", "names", "layer", "value"),
    [
        ([1.0, INF, 1.0], "fc1: ", "fc1", INF),
        ([NAN, INF, 1.0], "fc1, fc0: ", None, INF),
        ([INF, NAN, NAN], "fc2, fc1, fc0: ", None, NAN),
        ([NAN] * 5, "fc4, fc3, fc2 and 2 more layers: ", None, NAN),
        ([INF, None, None], "fc0: ", "fc0", INF),
    ],
)
def test_the_layers_that_overflowed_are_named_from_the_output(
    norms: list[float | None], names: str, layer: str | None, value: float
) -> None:
    (alert,) = check(run((1, layers(norms), True)))
    assert (alert.step, alert.rule, alert.layer, alert.severity) == (0, "skipped", layer, Severity.INFO)
    assert alert.message == names + OVERFLOW
    assert alert.concerned == tuple(f"fc{i}" for i, norm in enumerate(norms) if norm is not None and not norm < INF)
    np.testing.assert_equal((alert.value, alert.threshold), (value, INF))


def test_an_overflow_in_a_layer_that_is_not_watched() -> None:
    (alert,) = check(run((3, FINE, True)))
    assert alert.message == (
        "a gradient that is not watched overflowed at this loss scale, the GradScaler skipped the step"
    )
    assert (alert.layer, alert.value) == (None, pytest.approx(3**0.5))


def test_it_is_said_once_for_steps_skipped_in_a_row() -> None:
    one, other = layers([1.0, INF, 1.0]), layers([INF, 1.0, 1.0])
    steps = run((2, FINE, False), (3, one, True), (2, other, True), (1, FINE, False), (1, other, True))
    assert [(a.step, a.layer, a.severity) for a in check(steps)] == [
        (2, "fc1", Severity.INFO),
        (8, "fc0", Severity.INFO),
    ]


def test_forty_in_a_row_are_no_overflow() -> None:
    steps = run((1, FINE, False), (45, layers([NAN, NAN, 1.0]), True), (2, FINE, False))
    rule = Skipped()
    first, error, over = check(steps, rule)
    assert (first.step, first.severity) == (1, Severity.INFO)
    assert (error.step, error.severity, error.layer) == (40, Severity.ERROR, None)
    assert error.message == (
        "fc1, fc0: 40 steps in a row were skipped: no loss scale is small enough, so this is no overflow; look for "
        "NaN or inf in the data, the loss and the weights"
    )
    assert (over.step, over.severity) == (46, Severity.INFO)
    assert over.message == "fc1, fc0: recovered from skipped after 6 steps, gradient norm now 1"


def test_the_verdict_has_its_layers_while_it_lasts() -> None:
    rule = Skipped(patience=3)
    steps = run((4, layers([NAN, 1.0, 1.0]), True), (1, FINE, False))
    history = history_of(steps[:4])
    list(rule.check(history))
    assert rule.open_layers == ("fc0",)
    history.append(steps[4])
    list(rule.check(history))
    assert rule.open_layers is None


def test_thirty_nine_in_a_row_may_be_the_search_for_a_scale() -> None:
    steps = run(*[(39, layers([INF, INF, INF]), True), (1, FINE, False)] * 5)
    assert {alert.severity for alert in check(steps)} == {Severity.INFO}


def test_two_networks_by_turns_are_counted_apart() -> None:
    """The generator's steps are all skipped, the discriminator's none."""
    steps = run(*[(1, layers([NAN, None]), True), (1, layers([None, 1.0]), False)] * 45)
    assert [(a.step, a.severity) for a in check(steps)] == [(0, Severity.INFO), (78, Severity.ERROR)]


def test_what_is_not_finite_in_a_step_that_was_taken_is_not_skipped() -> None:
    assert check(run((30, layers([NAN, INF, 1.0]), False))) == []


OTHERS = [rule for rule in rules.default() if not isinstance(rule, Skipped)]


@pytest.mark.parametrize("rule", OTHERS, ids=lambda rule: rule.name)
@pytest.mark.parametrize("norm", [NAN, INF, 1e30, 0.0])
def test_no_other_rule_judges_a_skipped_step(rule: Any, norm: float) -> None:
    steps = healthy()
    width = len(steps[0].layers)
    for i in (*range(0, 250, 10), *range(100, 160)):
        steps[i] = stats(i, layers([norm] * width), skipped=True, update_ratio=np.full(width, 9.0))
    assert check(steps, rule) == []


def test_skipped_steps_do_not_interrupt_an_episode() -> None:
    """NaN in steps that are taken stays one fault, whatever the steps between."""
    broken = layers([NAN, 1.0, 1.0])
    steps = run((5, FINE, False), (2, broken, False), (9, broken, True), (1, broken, False), (3, FINE, False))
    assert [(a.step, a.severity) for a in check(steps, rules.NonFinite())] == [
        (5, Severity.ERROR),
        (19, Severity.INFO),
    ]
