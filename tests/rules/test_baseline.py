from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch import History
from gradwatch.history import MAD_TO_STD
from gradwatch.rules.baseline import NOISE, REFRESH_STEPS, Baseline
from tests.histories import INF, NAN, history_of, layers, stats

norms = st.one_of(st.none(), st.floats(1e-30, 1e30), st.sampled_from([0.0, 1.0, NAN, INF]))


def reference(column: list[float | None], minimum: int) -> tuple[float, float]:
    """Median norm, and 1.4826 median absolute deviations of the log norm."""
    logs = [math.log(norm) for norm in column if norm is not None and 0 < norm < INF]
    if len(logs) < minimum:
        return NAN, NAN
    middle = statistics.median(logs)
    return math.exp(middle), MAD_TO_STD * statistics.median(abs(x - middle) for x in logs)


@given(rows=st.lists(st.tuples(norms, norms, norms), min_size=2 * REFRESH_STEPS, max_size=2 * REFRESH_STEPS))
def test_medians_of_the_steps_before_the_latest(rows: list[tuple[float | None, ...]]) -> None:
    baseline = Baseline(window=10, minimum=4)
    baseline.update(history_of(map(layers, rows)))
    for i, column in enumerate(zip(*rows[-11:-1])):
        level, spread = reference(list(column), minimum=4)
        np.testing.assert_allclose(baseline["level"][i], level, rtol=1e-9)
        np.testing.assert_allclose(baseline["spread"][i], spread, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(baseline["peak"][i], NOISE * level, rtol=1e-9)


def test_the_spread_estimates_the_standard_deviation_of_the_log() -> None:
    rows = np.random.default_rng(0).lognormal(2.0, 0.5, (4000, 1)).tolist()
    baseline = Baseline(window=4000, minimum=20)
    baseline.update(history_of(map(layers, rows), window=4000))
    assert baseline["level"][0] == pytest.approx(math.exp(2.0), rel=0.05)
    assert baseline["spread"][0] == pytest.approx(0.5, rel=0.05)


def test_it_is_refreshed_now_and_then() -> None:
    baseline, history = Baseline(window=100, minimum=1), history_of([])
    levels = []
    for i in range(3 * REFRESH_STEPS):
        history.append(stats(i, {"fc": float(i + 1)}))
        baseline.update(history)
        levels.append(baseline["level"][0])
    changes = [i + 1 for i in range(1, len(levels)) if levels[i] != levels[i - 1] and not math.isnan(levels[i])]
    as_soon_as_there_is_one = 2
    assert changes == [as_soon_as_there_is_one, REFRESH_STEPS, 2 * REFRESH_STEPS, 3 * REFRESH_STEPS]


def test_it_is_refreshed_half_as_often_once_the_window_is_full() -> None:
    baseline, history = Baseline(window=2 * REFRESH_STEPS, minimum=1), history_of([])
    levels = []
    for i in range(8 * REFRESH_STEPS):
        history.append(stats(i, {"fc": float(i + 1)}))
        baseline.update(history)
        levels.append(baseline["level"][0])
    changes = [i + 1 for i in range(2, len(levels)) if levels[i] != levels[i - 1]]
    assert changes == [n * REFRESH_STEPS for n in (1, 2, 4, 6, 8)]


def test_a_frozen_layer_keeps_its_baseline() -> None:
    baseline = Baseline(window=REFRESH_STEPS, minimum=1)
    history = History(100)
    for i in range(2 * REFRESH_STEPS):
        high = 1.0 if i < REFRESH_STEPS else 100.0
        history.append(stats(i, layers([high, high])))
        baseline.update(history, frozen=np.array([i >= REFRESH_STEPS, False]))
    np.testing.assert_allclose(baseline["level"], [1.0, 100.0])


def test_the_peak_is_what_was_normal_at_the_highest_level() -> None:
    baseline, history = Baseline(window=REFRESH_STEPS, minimum=1), History(100)
    for i in range(6 * REFRESH_STEPS):
        history.append(stats(i, {"fc": 1.0 if i < 2 * REFRESH_STEPS else 0.01}))
        baseline.update(history)
    np.testing.assert_allclose(baseline["level"], [0.01])
    np.testing.assert_allclose(baseline["peak"], [NOISE])
