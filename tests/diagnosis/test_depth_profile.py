from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch import Alert, Diagnosis, History, Severity
from gradwatch.diagnosis import DepthProfile
from gradwatch.diagnosis.depth_profile import AT_MOST, WINDOW, largest_gap, profile
from gradwatch.diagnosis.words import PROBE_WOULD_TELL
from tests.histories import NAN

STEPS = 2 * WINDOW
PERFECT_FIT = "(a geometric profile explains 100% of the change)"


def explain(norms: list[float], rule: str, layers: int = 1) -> Diagnosis | None:
    """The diagnosis for layers whose norms stay what they are, with an alert for each of the first layers."""
    history = History.from_grad_norms({f"fc{i}": [norm] * STEPS for i, norm in enumerate(norms)})
    alerts = [Alert(STEPS - 1, rule, f"fc{i}", Severity.ERROR, 1.0, 1.0, "") for i in range(layers)]
    return DepthProfile().explain(history, None, alerts)


def test_a_geometric_decay_is_read_off_exactly() -> None:
    found = explain([0.25 ** (9 - i) for i in range(10)], "vanishing", layers=3)
    assert found is not None
    assert (found.cause, found.confidence) == ("shrinks_with_depth", AT_MOST)
    assert found.layers == tuple(f"fc{i}" for i in range(10))
    assert found.evidence[:-1] == (
        "the median gradient norm falls from 1 at fc9 to 3.8e-06 at fc0, 2.6e+05-fold over 9 layers",
        "each layer passes 0.25 of the gradient on to the one before it " + PERFECT_FIT,
        "3 of 10 layers fell below their limit",
    )
    assert "from 0.25 to about 1" in found.remedy


def test_a_geometric_growth_is_read_off_exactly() -> None:
    found = explain([3.0 ** (9 - i) for i in range(10)], "exploding")
    assert found is not None
    assert (found.cause, found.confidence) == ("grows_with_depth", AT_MOST)
    assert found.evidence[:-1] == (
        "the median gradient norm rises from 1 at fc9 to 2e+04 at fc0, 2e+04-fold over 9 layers",
        "each layer passes 3 of the gradient on to the one before it " + PERFECT_FIT,
    )
    assert found.evidence[-1] == PROBE_WOULD_TELL


def test_the_confidence_is_the_share_that_the_line_explains() -> None:
    norms = [10.0**-e for e in (9, 9, 6, 5, 3, 2, 2, 0)]
    found = explain(norms, "vanishing")
    assert found is not None
    x, y = np.arange(8.0), np.log(norms)
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    r_squared = 1 - np.sum(residual**2) / np.sum((y - y.mean()) ** 2)
    assert found.confidence == pytest.approx(AT_MOST * r_squared, abs=0.005)


def test_one_large_step_is_in_one_place() -> None:
    found = explain([1e-8, 2e-8, 0.5, 1.0], "vanishing")
    assert found is not None
    assert (found.cause, found.layers) == ("one_place", ("fc1", "fc2"))
    share = math.log(0.5 / 2e-8) / math.log(1.0 / 1e-8)
    assert found.confidence == pytest.approx(AT_MOST * share, abs=0.005)
    assert found.evidence[1] == (
        f"{share:.0%} of that (on a log scale) happens between fc2 and fc1: 0.5 to 2e-08, 2.5e+07-fold in one place"
    )
    assert "what lies between fc1 and fc2" in found.remedy


@pytest.mark.parametrize(
    ("norms", "rule"),
    [
        ([1e-9, 1.0], "vanishing"),  # two layers have no profile
        ([0.1, 0.2, 0.5, 1.0], "vanishing"),  # less than a hundredfold
        ([1e6, 1e3, 1.0], "vanishing"),  # it grows towards the input
        ([1.0, 1e3, 1e6], "exploding"),  # it shrinks towards the input
        ([1e-9, 1e-5, 1.0], "nonfinite"),
        ([0.0, 0.0, 0.0, 1.0], "vanishing"),
    ],
)
def test_what_it_does_not_explain(norms: list[float], rule: str) -> None:
    assert explain(norms, rule) is None


def test_the_profile_is_the_median_of_the_last_steps() -> None:
    old = [99.0] * 10
    history = History.from_grad_norms(
        a=old + [1.0, 2.0, 3.0, NAN] * (WINDOW // 4),
        frozen=[None] * (10 + WINDOW),
        zero=[0.0] * (10 + WINDOW),
        b=old + [5.0, None] * (WINDOW // 2),
    )
    index, norms = profile(history)
    assert index == [0, 3]
    assert norms.tolist() == [2.0, 5.0]


def test_the_largest_gap_and_its_share() -> None:
    share, index = largest_gap(np.exp([0.0, 1.0, 7.0, 5.0, 6.0]))
    assert (share, index) == (pytest.approx(6 / 10), 1)


@pytest.mark.parametrize("value", [1.0, 0.0, -3.0, NAN])
def test_the_least_factor_is_above_one(value: float) -> None:
    with pytest.raises(ValueError, match=f"DepthProfile: min_factor must be above 1, got {value}"):
        DepthProfile(min_factor=value)
