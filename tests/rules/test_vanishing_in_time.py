from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, History, Severity
from gradwatch.rules import VanishingInTime
from tests.histories import NAN, layers, stats

RULE = VanishingInTime()


def check(rule: VanishingInTime, *seen: tuple[float, ...] | None, before: int = 0, half: bool = False) -> list[Alert]:
    """What ``rule`` says of these ratios, gains and errors of the outputs (1 where they are not given).

    They are of the first of two layers; None where nobody looked. ``before`` them is one look and such steps.
    """
    history, found = History(), []
    nothing = [(1.0, 1.0), *[None] * (before - 1)] if before else []
    for look in [*nothing, *seen]:
        more: dict[str, Any] = {}
        if look is not None:
            more = {name: np.array([value, NAN]) for name, value in zip(("time_ratio", "time_gain"), look)}
            more["output_error"] = (*look, 1.0)[2]
        history.append(stats(history.count, layers([1.0, 1.0]), half=half, **more))
        found += rule.check(history)
    return found


@pytest.mark.parametrize(
    ("ratio", "gain", "at_first", "later"),
    [
        (1e-9, 0.2, True, True),
        (1e-9, 0.5, False, True),  # as freshly made
        (1e-9, 0.9, False, False),  # over many time steps
        (5e-3, 0.2, False, True),  # over few
        (5e-2, 0.2, False, False),  # over fewer
        (NAN, NAN, False, False),
    ],
)
def test_what_is_left_at_early_time_steps_and_per_time_step(
    ratio: float, gain: float, at_first: bool, later: bool
) -> None:
    for before, told in ((0, at_first), (100, later)):
        found = check(VanishingInTime(), *[(ratio, gain)] * 5, before=before)
        assert [(a.step, a.layer, a.severity) for a in found] == (
            [(before + RULE.patience - 1, "fc0", Severity.ERROR)] if told else []
        )


def test_one_later_look_is_enough_where_the_first_ones_were_no_better() -> None:
    faster, fresh, nothing = (1e-9, 0.45), (1e-9, 0.55), [None] * 100
    assert [a.step for a in check(VanishingInTime(), faster, *nothing, faster)] == [101]
    assert check(VanishingInTime(), faster, (0.5, 0.9), *nothing, faster) == []
    assert check(VanishingInTime(), (0.5, 0.9), *nothing, faster) == []
    assert [a.step for a in check(VanishingInTime(), fresh, *nothing, fresh, None, fresh)] == [103]


def test_a_fresh_layer_may_be_slow_to_learn_from_the_late_time_steps() -> None:
    slow = [(1e-6, 0.64), *[None] * 99, (1e-6, 0.66, 0.91), *[None] * 99, (1e-6, 0.69, 0.76)]
    assert check(VanishingInTime(), *slow) == []


@pytest.mark.parametrize(
    ("gain", "left", "told"),
    [
        (0.6, 0.95, True),  # nothing learned, by what forgets as a fresh layer does
        (0.6, 0.65, False),  # a forecast of what can be told in part
        (0.6, 0.2, False),  # a forecast from the last values
        (0.4, 0.75, True),  # the late half of the answer, by what forgets faster
        (0.4, 0.6, False),
        (0.9, 1.0, False),  # nothing learned, but not for forgetting
        (0.4, NAN, False),
    ],
)
def test_later_it_counts_where_little_was_learned(gain: float, left: float, told: bool) -> None:
    found = check(VanishingInTime(), *[(1e-9, gain, left)] * 3, before=100)
    assert bool(found) is told


def test_a_layer_that_begins_to_remember_is_left_alone() -> None:
    plateau = [(3e-4, 0.55), *[None] * 99, (3e-3, 0.64), *[None] * 99, (1.0, 1.0, 0.4)]
    assert check(VanishingInTime(), *plateau) == []


@pytest.mark.parametrize(
    ("looks", "steps"),
    [
        ([(1e-9, 0.75, 0.76), (1e-9, 0.75, 0.74)], [1]),  # it stands still at what the late time steps tell
        ([(1e-9, 0.75, 0.85), (1e-9, 0.75, 0.74)], []),  # it learns
        ([(1e-9, 0.75, 0.66), (1e-9, 0.75, 0.65)], []),  # more than half is learned
        ([(0.1, 0.9, 0.76), (1e-9, 0.75, 0.74)], [1]),  # of the error two looks tell, one of the time steps is enough
        ([(1e-9, 0.75, 0.76), (0.1, 0.9, 0.74)], []),
        ([(1e-9, 0.85, 0.76), (1e-9, 0.85, 0.74)], []),  # it remembers
    ],
)
def test_an_error_that_stands_still_is_told_of_what_forgets(
    looks: list[tuple[float, float, float]], steps: list[int]
) -> None:
    found = check(VanishingInTime(), (0.1, 0.9), *[None] * 99, looks[0], *[None] * 99, looks[1])
    assert [a.step // 100 - 1 for a in found if a.severity is Severity.ERROR] == steps


def test_its_words_and_its_recovery() -> None:
    found = check(VanishingInTime(), (1e-9, 0.2), None, (1e-9, 0.2), (0.5, 0.9), (0.5, 0.9))
    assert [a.message for a in found] == [
        "fc0: the first quarter of the time steps gets at most 1e-09 of the largest gradient at any time step",
        "fc0: recovered from vanishing_in_time after 2 steps, share of the gradient now 0.5",
    ]


@pytest.mark.parametrize("argument", ["first_ratio", "first_gain", "ratio", "gain", "fresh_gain"])
@pytest.mark.parametrize(("value", "error"), [(0.0, ValueError), (2.0, ValueError), (None, TypeError)])
def test_arguments_out_of_range(argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^VanishingInTime: {argument} must be "):
        VanishingInTime(**{argument: value})


@pytest.mark.parametrize("argument", ["nothing", "little"])
def test_limits_of_what_is_left_out_of_range(argument: str) -> None:
    with pytest.raises(ValueError, match=f"^VanishingInTime: {argument} must be above 0, got 0$"):
        VanishingInTime(**{argument: 0})
