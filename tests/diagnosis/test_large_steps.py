from __future__ import annotations

import re

import numpy as np
import pytest

from gradwatch import Alert, Diagnosis, History, Severity
from gradwatch.clipping import GlobalNorm
from gradwatch.diagnosis import LargeSteps
from tests.histories import INF, NAN, layers, stats

ALERTS = [
    Alert(9, "exploding", "fc1", Severity.ERROR, 1e4, 1e3, ""),
    Alert(9, "vanishing", "fc2", Severity.ERROR, 1e-9, 1e-7, ""),
    Alert(12, "exploding", "fc0", Severity.ERROR, 1e4, 1e3, ""),
    Alert(15, "exploding", "fc1", Severity.ERROR, 1e4, 1e3, ""),
]


def explain(totals: list[float], update: list[float] | None = None) -> Diagnosis | None:
    """The diagnosis for two layers that share each total as 3 : 4, so that it is five times their unit."""
    history = History()
    for i, total in enumerate(totals):
        sampled = {} if update is None or i else {"update_ratio": np.array(update)}
        history.append(stats(i, layers([total * 0.6, total * 0.8]), **sampled))
    return LargeSteps().explain(history, None, ALERTS)


def max_norm(found: Diagnosis) -> float:
    """The limit that the remedy names, which has to be one that the policy takes."""
    value = float(re.search(r"GlobalNorm\(max_norm=([^)]+)\)", found.remedy)[1])  # type: ignore[index]
    GlobalNorm(max_norm=value)
    return value


def test_a_jump_is_told_with_the_median_it_left() -> None:
    found = explain([2.0] * 30 + [5e3] * 5)
    assert found is not None
    assert (found.cause, found.confidence) == ("large_steps", 0.6)
    assert found.layers == ("fc1", "fc0")
    assert found.evidence == ("the total gradient norm is 5e+03, 2.5e+03 times its median of 2",)
    assert max_norm(found) == 2.0


def test_large_from_the_start() -> None:
    found = explain([5e3] * 20 + [8e3])
    assert found is not None
    assert found.evidence == ("the total gradient norm is 5e+03 in the median and 8e+03 at most",)
    assert max_norm(found) == 500.0


def test_a_run_that_overflows_at_once_has_seen_nothing_normal() -> None:
    found = explain([5e3, 2e8, 2e18, INF])
    assert found is not None
    assert max_norm(found) == 1.0


def test_weights_that_move_far_are_named() -> None:
    found = explain([2.0] * 30 + [5e3] * 5, update=[0.5, 2.0])
    assert found is not None
    assert found.confidence == 0.9
    assert found.evidence[1] == "one step changed the weights of fc1 by 200% of their size"


@pytest.mark.parametrize("update", [[0.01, NAN], [NAN, NAN], [0.1, 0.0]])
def test_weights_that_move_calmly_are_not(update: list[float]) -> None:
    found = explain([2.0] * 30 + [5e3] * 5, update=update)
    assert found is not None
    assert (len(found.evidence), found.confidence) == (1, 0.6)


def test_steps_that_are_not_finite_or_zero_do_not_count() -> None:
    assert explain([2.0] * 30 + [5e3] * 5 + [NAN, INF] * 20) == explain([0.0] * 60 + [2.0] * 30 + [5e3] * 5)


@pytest.mark.parametrize("totals", [[], [NAN], [0.0, INF]])
def test_nothing_measured_explains_nothing(totals: list[float]) -> None:
    assert explain(totals) is None


@pytest.mark.parametrize("value", [0.0, -1.0, NAN])
def test_the_largest_ordinary_update_is_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match=f"LargeSteps: max_update must be above 0, got {value}"):
        LargeSteps(max_update=value)
