"""Progress against shares worked out by hand."""

from __future__ import annotations

import math

import pytest

from gradwatch import History, StepStats
from gradwatch.history import EARLY
from gradwatch.progress import APART, BEYOND, FIRST, NOTHING, SAME, STAYS, Progress
from tests.histories import INF, LOOK, NAN, history_of, slow, stats

BEGIN = [0.9, 1.1, 1.0, 0.95, 1.05]


def of_classes(*errors: float | None) -> Progress:
    """After looks that tell the error of a cross entropy."""
    progress = Progress()
    for number, error in enumerate([1.0, 1.0, *errors]):
        progress.look(stats(number, {"fc": 1.0}, output_error=error), count=number if number < 2 else 100 * number)
    return progress


def by_gradient(early: list[float | None], later: list[float | None], half: bool = False) -> Progress:
    """After looks that tell the gradient alone."""
    progress = Progress()
    for number, gradient in enumerate([*early, *later]):
        step = stats(number, {"fc": 1.0}, output_gradient=gradient, output_error=NAN, half=half)
        progress.look(step, count=number if number < len(early) else 100 * (number + 1))
    return progress


def test_the_error_of_a_cross_entropy_is_a_share_by_itself() -> None:
    assert of_classes(0.7).left == 0.7
    assert of_classes(0.7).of_classes
    assert math.isnan(of_classes().left)


def test_of_other_losses_it_is_relative_to_the_mean_of_the_first_looks() -> None:
    first: list[float | None] = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(first) == FIRST
    assert by_gradient([*first, 1e9], [1.5]).left == pytest.approx(0.5)
    assert by_gradient(first[:2], [1.5]).left == pytest.approx(1.0)
    assert not by_gradient(first, [1.5]).of_classes


@pytest.mark.parametrize("unknown", [None, NAN, INF])
def test_what_is_not_known_does_not_count(unknown: float | None) -> None:
    assert by_gradient([unknown, 1.0, unknown, 3.0], [1.0, unknown]).left == pytest.approx(0.5)
    assert math.isnan(by_gradient([unknown], [1.0]).left)
    assert math.isnan(by_gradient([1.0, 2.0], [unknown]).left)
    assert math.isnan(by_gradient([1.0, 2.0], []).left)


@pytest.mark.parametrize(
    ("early", "half", "units"),
    [
        ([3.0, 2.0, 5.0], False, 2.0),
        ([None, NAN, INF, 3.0], False, 3.0),
        ([0.0, 3.0], False, 3.0),
        ([1e300, 1e301], False, 1e300),
        ([None, NAN, INF], False, 0.0),
        ([], False, 0.0),
        ([3.0, 2.0], True, 0.0),  # a gradient scaler may have changed its scale
    ],
)
def test_the_units_of_a_loss_are_the_least_of_the_first_looks(
    early: list[float | None], half: bool, units: float
) -> None:
    assert by_gradient(early, [1e-3, 1e9], half).units == units


@pytest.mark.parametrize("unknown", [None, NAN])
def test_the_step_of_the_last_look_that_counts(unknown: float | None) -> None:
    progress = by_gradient([1.0, 2.0], [1.0, unknown])
    assert progress.looked_at == 2
    assert by_gradient([1.0], []).looked_at == -1


@pytest.mark.parametrize("first", [0.0, 2.0])
def test_a_gradient_that_is_the_same_at_all_first_looks_says_nothing(first: float) -> None:
    """As that of a root of mean squares, whose norm is a number, or none at all."""
    assert math.isnan(by_gradient([first * (1 + SAME / 9), first], [first]).left)


def test_a_gradient_says_nothing_while_a_gradient_scaler_may_change_its_scale() -> None:
    assert math.isnan(by_gradient([*BEGIN], [1.0], half=True).left)
    assert by_gradient([*BEGIN], [1.0], half=True).first == 0.0


@pytest.mark.parametrize(
    ("later", "is_none", "stands"),
    [
        ([0.9], True, False),  # one look is no standstill
        ([0.9, 0.88], True, True),
        ([0.95, 0.95 * STAYS - 0.01], True, False),  # it falls
        ([1.3, 1.4], True, True),  # worse than a constant
        ([0.79, 0.81], True, False),
        ([0.9, 0.79], False, False),
        ([0.9, INF], True, False),
        ([0.9, None], True, False),
        ([2.0, 1.0], True, False),
    ],
)
def test_nothing_learned_and_a_standstill(later: list[float | None], is_none: bool, stands: bool) -> None:
    progress = of_classes(*later)
    assert (progress.is_none(but=0.8), progress.stands_still(but=0.8)) == (is_none, stands)


@pytest.mark.parametrize(
    ("left", "is_none"),
    [(NOTHING + 0.01, True), (NOTHING - 0.01, False), (BEYOND - 0.01, True), (BEYOND + 0.01, False)],
)
def test_of_a_loss_that_is_not_known_nearly_all_must_be_left_twice(left: float, is_none: bool) -> None:
    assert by_gradient([*BEGIN], [left, 1.0]).is_none(but=0.7) is is_none
    assert by_gradient([*BEGIN], [1.0, left]).is_none(but=0.7) is is_none
    assert not by_gradient([*BEGIN], [left]).is_none(but=0.7)


def test_two_kinds_of_looks_are_no_standstill() -> None:
    progress = by_gradient([*BEGIN], [1.0, 1.0])
    progress.look(stats(9, {"fc": 1.0}, output_error=1.0), count=2000)
    assert progress.is_none(but=0.8)
    assert not progress.stands_still(but=0.8)


def test_a_gradient_of_one_size_tells_no_units() -> None:
    progress = Progress()
    progress.look(stats(0, {"fc": 1.0}, output_gradient=NAN, output_error=NAN, output_row=0.0), count=1)
    assert (progress.has_one_size, progress.units) == (True, 0.0)
    progress = Progress()  # nor is it where nothing was heard
    progress.look(stats(0, {"fc": 1.0}, output_gradient=NAN, output_error=NAN, output_row=NAN), count=1)
    assert (progress.has_one_size, progress.units) == (False, 0.0)


def test_a_history_keeps_it_through_a_checkpoint() -> None:
    history = history_of(slow({"fc": 1.0}, left=0.75))
    assert history.progress.left == 0.75
    continued = History()
    continued.load_state_dict(history.state_dict())
    for step in range(LOOK + 1, LOOK + 2 + APART):
        for one in (history, continued):
            one.append(stats(step, {"fc": 1.0}, output_error=0.7))
    assert continued.progress.state_dict() == history.progress.state_dict()
    assert continued.progress.stands_still(but=0.6)


def test_the_first_looks_are_those_of_the_first_steps() -> None:
    run: list[StepStats] = [stats(i, {"fc": 1.0}, output_error=0.3) for i in range(EARLY)]
    assert math.isnan(history_of(run).progress.left)


def test_looks_that_count_are_a_hundred_steps_apart() -> None:
    errors = {50: 0.9, 110: 0.8, 130: 0.7, 220: 0.75, 300: 0.5}
    run = [stats(i, {"fc": 1.0}, output_error=errors.get(i)) for i in range(301)]
    assert [history_of(run[: i + 1]).progress.left for i in (110, 130, 220, 300)] == [0.8, 0.8, 0.75, 0.75]
    assert history_of(run).progress.stands_still(but=0.7)
