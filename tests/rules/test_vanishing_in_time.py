from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, History, Severity
from gradwatch.rules import VanishingInTime
from tests.histories import NAN, layers, stats

RULE = VanishingInTime()


def check(rule: VanishingInTime, *seen: tuple[float, float] | None, before: int = 0, later: float = 1.0) -> list[Alert]:
    """What ``rule`` says of these ratios and gains of the first of two layers, None where nobody looked.

    Norms are 1, and ``later`` from step 30 on.
    """
    history, found = History(), []
    for pair in [*[None] * before, *seen]:
        more = {} if pair is None else {"time_ratio": np.array([pair[0], NAN]), "time_gain": np.array([pair[1], NAN])}
        history.append(stats(history.count, layers([1.0 if history.count < 30 else later] * 2), **more))
        found += rule.check(history)
    return found


@pytest.mark.parametrize(
    ("ratio", "gain", "at_first", "later"),
    [
        (1e-9, 0.2, True, True),
        (1e-9, 0.5, False, True),  # as freshly made
        (1e-9, 0.9, False, False),  # over many time steps
        (1e-3, 0.2, False, True),  # over few
        (1e-2, 0.2, False, False),  # over fewer
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
    as_made, nothing = (1e-9, 0.5), [None] * 25
    assert [a.step for a in check(VanishingInTime(), as_made, *nothing, as_made)] == [26]
    assert check(VanishingInTime(), as_made, (0.5, 0.9), *nothing, as_made) == []
    assert check(VanishingInTime(), (0.5, 0.9), *nothing, as_made) == []


@pytest.mark.parametrize(("later", "told"), [(0.1, False), (0.6, True), (1.2, True), (3.0, False), (NAN, True)])
def test_later_it_counts_where_nothing_was_learned(later: float, told: bool) -> None:
    found = check(VanishingInTime(), *[(1e-9, 0.5)] * 3, before=100, later=later)
    assert bool(found) is told


def test_its_words_and_its_recovery() -> None:
    found = check(VanishingInTime(), (1e-9, 0.2), None, (1e-9, 0.2), (0.5, 0.9), (0.5, 0.9))
    assert [a.message for a in found] == [
        "fc0: the first quarter of the time steps gets 1e-09 of the gradient that the last ones get",
        "fc0: recovered from vanishing_in_time after 2 steps, share of the gradient now 0.5",
    ]


@pytest.mark.parametrize("argument", ["first_ratio", "first_gain", "ratio", "gain"])
@pytest.mark.parametrize(("value", "error"), [(0.0, ValueError), (2.0, ValueError), (None, TypeError)])
def test_arguments_out_of_range(argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^VanishingInTime: {argument} must be "):
        VanishingInTime(**{argument: value})
