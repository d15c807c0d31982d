from __future__ import annotations

from typing import Any

import pytest

from gradwatch import Alert, Severity
from gradwatch.alert_log import AlertLog
from gradwatch.progress import APART
from gradwatch.rules import Unstable
from tests.histories import INF, LOOK, NAN, Step, history_of, layers, slow, stats, told_by

RULE = Unstable()
CALM, LEAP = [1.0] * 9, 1.1 * RULE.largest_factor
LEAPING = [*CALM, LEAP] * RULE.leaps + CALM
TOLD = 10 * RULE.leaps
"""The first normal step after the last of the leaps."""


def check(norms: list[float], update: float | None = 2 * RULE.largest, **changes: Any) -> list[Alert]:
    """Of two layers that share the total norm; the steps' size is measured once, early on."""
    return run([layers([norm, norm]) for norm in norms], update, **changes)


def run(steps: list[Step], update: float | None = 2 * RULE.largest, **changes: Any) -> list[Alert]:
    found: list[Alert] = []
    rule, history = Unstable(**changes), history_of([])
    for number, step in enumerate(steps):
        history.append(stats(number, step, total_update=update if number == 2 else None))
        found += rule.check(history)
    return found


def test_leaps_by_large_steps_of_a_gradient_that_does_not_come_down() -> None:
    (alert,) = check(LEAPING)
    assert (alert.step, alert.layer, alert.severity) == (TOLD, None, Severity.WARNING)
    assert (alert.value, alert.threshold) == (RULE.leaps, RULE.leaps)
    assert "steps move the weights by 0.03 of their size" in alert.message


@pytest.mark.parametrize(
    "norms",
    [
        [*CALM, LEAP] * (RULE.leaps - 1) + CALM * 20,  # a bad batch or two
        [*CALM, 0.9 * RULE.factor] * 10,  # noise
        [*CALM, 0.9 * RULE.largest_factor] * 10,  # a batch with a rare class
        [*CALM, LEAP, 0.1] * 10,  # as far below as above: small batches
        [10.0] * 5 + LEAPING,  # it has learned: the usual norm is a tenth of that of the start
        [*CALM, LEAP, *[1.0] * RULE.window] * RULE.leaps,  # rare
        [*CALM, *[LEAP] * 4] * RULE.leaps + CALM,  # rises that last
        [1.5**i for i in range(12)] * RULE.leaps,  # and slow ones
        [*CALM, INF] * 10,  # what a gradient scaler skips
        [*CALM, NAN] * 10,
        [1e308, 1e300] * 20,
    ],
    ids=[
        "few",
        "low",
        "none very large",
        "on both sides",
        "came down",
        "rare",
        "lasting",
        "slow",
        "inf",
        "nan",
        "huge",
    ],
)
def test_other_leaps_are_no_fault(norms: list[float]) -> None:
    assert check(norms) == []


@pytest.mark.parametrize("first", [[INF] * 3, [NAN], []], ids=["a scaler finds its scale", "NaN", "none"])
def test_the_start_is_that_of_finite_steps(first: list[float]) -> None:
    assert [alert.step - len(first) for alert in check([*first, *LEAPING])] == [TOLD]


def test_where_the_start_was_not_seen_nothing_is_told() -> None:
    history, rule = history_of([]), Unstable()
    for number, norm in enumerate([100.0] * 30 + LEAPING):
        history.append(stats(number, layers([norm, norm]), total_update=2 * RULE.largest))
        if number >= 30:  # as after a state without this rule was loaded
            rule._seen = history.count - 1
            assert list(rule.check(history)) == []


@pytest.mark.parametrize("update", [None, 0.0, 0.9 * RULE.update, 0.9 * RULE.largest, NAN])
def test_what_moves_little_may_leap(update: float | None) -> None:
    assert check(LEAPING, update) == []


@pytest.mark.parametrize(
    ("leaps", "update", "depth", "left", "told"),
    [
        ([LEAP] * RULE.leaps, 0.6 * RULE.update, 2, 0.8, True),  # smaller steps are enough
        ([LEAP] * RULE.leaps, 0.4 * RULE.update, 2, 0.8, False),
        ([LEAP] * RULE.leaps, 0.6 * RULE.update, 2, 0.6, False),  # it learns
        ([LEAP] * RULE.leaps, 0.6 * RULE.update, 2, NAN, False),
        ([6.0] * (RULE.leaps - 1), 0.01, 20, 0.8, True),  # in a deep network, a leap less, and none very large
        ([6.0] * (RULE.leaps - 1), 0.01, 20, 0.6, False),
        ([6.0] * (RULE.leaps - 1), 0.01, 10, 0.8, False),
        ([6.0] * (RULE.leaps - 2), 0.01, 20, 0.8, False),
    ],
)
def test_less_is_enough_where_little_was_learned(
    leaps: list[float], update: float, depth: int, left: float, told: bool
) -> None:
    step = layers([1.0] * depth)
    start = slow(step, left, start={"total_update": 2 * RULE.largest}, later={"total_update": update})
    norms = [norm for leap in leaps for norm in [*CALM, leap]] + CALM
    after = [stats(LOOK + i, layers([norm] * depth)) for i, norm in enumerate(norms, 1)]
    assert [a.severity for a in told_by(Unstable(), [*start, *after])] == [Severity.ERROR] * told


def test_the_size_of_the_steps_is_the_one_last_measured() -> None:
    rule, history = Unstable(), history_of([])
    for number, norm in enumerate(LEAPING):
        history.append(stats(number, layers([norm, norm]), total_update={2: 0.1, 12: 1e-4}.get(number)))
        assert rule.check(history) == []


def test_networks_that_take_turns_do_not_leap() -> None:
    """As one that is trained at every fifth step, and whose gradients are the larger ones."""
    for idle in (None, 0.0):
        turn = [layers([1.0, 1.0, idle])] * 4 + [layers([1.0, 1.0, LEAP])]
        assert run(turn * 20) == []


def test_a_single_layer_may_need_large_steps() -> None:
    assert run([layers([norm]) for norm in LEAPING]) == []


@pytest.mark.parametrize(("left", "severities"), [(0.6, []), (0.8, [Severity.ERROR]), (NAN, [Severity.ERROR])])
def test_it_is_an_error_once_a_look_tells_that_little_was_learned(left: float, severities: list[Severity]) -> None:
    """Or what was learned cannot be told."""
    rule, history = Unstable(), history_of([])
    found: list[Alert] = []
    for number, norm in enumerate(LEAPING * 4):
        looked = {"output_error": 1.0 if number < APART else left} if number in (2, APART) else {}
        step = 2 * RULE.largest if number == 2 else None
        history.append(stats(number, layers([norm, norm]), total_update=step, **looked))
        found += rule.check(history)
    assert [a.severity for a in found] == [Severity.WARNING, *severities]
    if left == 0.8:
        assert found[1].step == APART
        assert found[1].message == f"{found[0].message}; 80% of the outputs' error is left"


def test_so_it_is_where_nobody_looks() -> None:
    first, second = check(LEAPING * 6)
    assert (first.severity, second.severity) == (Severity.WARNING, Severity.ERROR)
    assert second.step == TOLD + APART + 1


def test_it_is_told_again_after_a_rest() -> None:
    rest = [1.0] * 2 * RULE.window
    first, over, second = check(LEAPING + rest + LEAPING)
    assert [first.step, over.step, second.step] == [TOLD, TOLD + RULE.window + 1, len(LEAPING + rest) + TOLD]
    assert [a.severity for a in (first, over, second)] == [Severity.WARNING, Severity.INFO, Severity.WARNING]
    assert over.message == "recovered from unstable after 101 steps, the last 100 of them without such a leap"


def test_it_goes_on_until_it_is_over() -> None:
    rule, history, log, verdicts = Unstable(), history_of([]), AlertLog(), []
    for number, norm in enumerate(LEAPING + [1.0] * RULE.window):
        history.append(stats(number, layers([norm, norm]), total_update=2 * RULE.largest if number == 2 else None))
        log.take([(rule, list(rule.check(history)))])
        verdicts.append(log.ongoing([rule]))
    assert verdicts == [{}] * TOLD + [{"unstable": ()}] * (RULE.window + 1) + [{}] * (len(verdicts) - TOLD - 101)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"leaps": 0}, ValueError, r"Unstable: leaps"),
        ({"window": 1}, ValueError, r"Unstable: window"),
        ({"factor": 1.0}, ValueError, r"Unstable: factor"),
        ({"steepness": 0.5}, ValueError, r"Unstable: steepness"),
        ({"update": -1.0}, ValueError, r"Unstable: update"),
        ({"of_all_layers": -1.0}, ValueError, r"Unstable: of_all_layers"),
        ({"level": "low"}, TypeError, r"Unstable: level"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Unstable(**arguments)
