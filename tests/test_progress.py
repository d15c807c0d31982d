"""Progress against shares worked out by hand."""

from __future__ import annotations

import math

import pytest

from gradwatch import History, StepStats
from gradwatch.history import EARLY
from gradwatch.progress import BEYOND, FIRST, STAYS, Progress
from tests.histories import INF, LOOK, NAN, history_of, slow, stats


def told(early: list[float | None], later: list[float | None], half: bool = False) -> Progress:
    progress = Progress()
    for number, gradient in enumerate([*early, *later]):
        step = stats(number, {"fc": 1.0}, output_gradient=gradient, half=half)
        progress.look(step, early=number < len(early))
    return progress


def test_what_is_left_is_relative_to_the_mean_of_the_first_looks() -> None:
    first = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(first) == FIRST
    assert told([*first, 1e9], [1.5]).left == pytest.approx(0.5)
    assert told(first[:2], [1.5]).left == pytest.approx(1.0)


@pytest.mark.parametrize("unknown", [None, NAN, INF])
def test_what_is_not_known_does_not_count(unknown: float | None) -> None:
    assert told([unknown, 2.0, unknown], [1.0, unknown]).left == pytest.approx(0.5)
    assert math.isnan(told([unknown], [1.0]).left)
    assert math.isnan(told([1.0], [unknown]).left)
    assert math.isnan(told([1.0], []).left)


def test_no_share_of_nothing() -> None:
    assert math.isnan(told([0.0] * 5, [1.0]).left)


def test_nothing_is_known_while_a_gradient_scaler_may_change_its_scale() -> None:
    assert math.isnan(told([1.0] * 5, [1.0], half=True).left)


@pytest.mark.parametrize(
    ("later", "is_none", "stands"),
    [
        ([0.9], True, False),  # one look is no standstill
        ([0.9, 0.88], True, True),
        ([0.95, 0.95 * STAYS - 0.01], True, False),  # it falls
        ([1.05, 0.9 * BEYOND], True, True),
        ([0.79, 0.81], True, False),
        ([0.9, 0.79], False, False),
        ([0.9, 1.01 * BEYOND], False, False),  # a loss of another kind
        ([2.0, 1.0], True, False),
    ],
)
def test_nothing_learned_and_a_standstill(later: list[float | None], is_none: bool, stands: bool) -> None:
    progress = told([1.0] * 5, later)
    assert (progress.is_none(but=0.8), progress.stands_still(but=0.8)) == (is_none, stands)


def test_a_history_keeps_it_through_a_checkpoint() -> None:
    history = history_of(slow({"fc": 1.0}, left=0.75))
    assert history.progress.left == pytest.approx(0.75)
    continued = History()
    continued.load_state_dict(history.state_dict())
    for step in (LOOK + 1, LOOK + 2):
        for one in (history, continued):
            one.append(stats(step, {"fc": 1.0}, output_gradient=1.4))
    assert continued.progress.state_dict() == history.progress.state_dict()
    assert continued.progress.stands_still(but=0.6)


def test_a_checkpoint_of_an_older_version_knows_nothing_of_it() -> None:
    state = history_of(slow({"fc": 1.0}, left=0.75)).state_dict()
    del state["progress"]
    history = history_of(slow({"fc": 1.0}, left=0.75))
    history.load_state_dict(state)
    assert math.isnan(history.progress.left)


def test_the_first_looks_are_those_of_the_first_steps() -> None:
    run: list[StepStats] = [stats(i, {"fc": 1.0}) for i in range(EARLY)]
    history = history_of([*run, stats(EARLY, {"fc": 1.0}, output_gradient=1.0)])
    assert math.isnan(history.progress.left)
