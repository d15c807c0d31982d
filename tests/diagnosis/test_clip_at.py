from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradwatch import History
from gradwatch.diagnosis.clip_at import clip_at, norm_of_a_calm_step, usual_norm
from tests.diagnosis.profiles import INF, NAN


def run(norms: list[float], update: float) -> History:
    """A run whose first step moved the weights by ``update`` of their size."""
    history, measured = History(), History.from_grad_norms(fc=norms)
    for step, norm in enumerate(norms):
        assert measured.latest is not None
        row = replace(measured.latest, step=step, total_norm=norm, total_update=update if step == 1 else None)
        history.append(row)
    return history


def test_a_step_in_proportion_to_the_gradient() -> None:
    """400 moved the weights by their whole size, so that 4 moves them by a hundredth."""
    history = run([400.0, 1e9, 1e9], 1.0)
    assert norm_of_a_calm_step(history) == 4.0
    assert clip_at(history, 3.0) == "clip at 4: a step then moves the weights by 1%"


def test_the_smaller_of_two_limits() -> None:
    assert clip_at(run([400.0, *[0.1] * 40], 1.0), 3.0) == "clip at 0.3: 3 times this run's median norm"


def test_the_norms_of_a_run_that_is_dead_are_no_limit() -> None:
    """A first step of 400 moved the weights by their whole size, and left nothing."""
    assert clip_at(run([400.0, *[4e-12] * 40], 1.0), 3.0) == "clip at 4: a step then moves the weights by 1%"


@pytest.mark.parametrize(("left", "limit"), [(0.1, "60: 3 times the norm that this run began with"), (0.9, "0.3: 3")])
def test_a_norm_that_came_down_as_the_run_learned_is_no_limit(left: float, limit: str) -> None:
    history = run([20.0, *[0.1] * 200], 1e-3)
    assert history.latest is not None
    history.append(replace(history.latest, step=201, output_error=left))
    assert clip_at(history, 3.0).startswith(f"clip at {limit}")


def test_a_first_norm_that_overflowed_is_no_limit() -> None:
    history = run([INF, *[0.5] * 100], 1e-3)
    assert history.latest is not None
    history.append(replace(history.latest, step=101, output_error=0.1))
    assert clip_at(history, 3.0) == "clip at 1.5: 3 times this run's median norm"


@pytest.mark.parametrize(
    ("norms", "limit"),
    [
        ([2.0, *[1e3] * 40], "6: 3 times the norm that this run began with"),
        ([2.0, *[1e2] * 40], "300: 3 times this run's median norm"),
        ([1e8] * 40, "1: this run saw no normal steps to tell, and 1 is usual"),
        ([2.0, *[1e22] * 40], "6: 3 times the norm that this run began with"),
    ],
)
def test_an_explosion_is_no_measure(norms: list[float], limit: str) -> None:
    assert clip_at(run(norms, 1e-3), 3.0) == f"clip at {limit}"


def test_calm_steps_set_no_limit() -> None:
    assert math.isnan(norm_of_a_calm_step(run([1.0, 1.0], 1e-3)))
    assert math.isnan(norm_of_a_calm_step(History()))


def test_what_is_not_finite_does_not_count() -> None:
    assert usual_norm(History.from_grad_norms(fc=[NAN, 2.0, INF, 0.0, 4.0])) == 3.0
    assert math.isnan(usual_norm(History()))
    assert clip_at(History.from_grad_norms(fc=[NAN] * 30), 3.0).startswith("clip at 1: ")
