from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import UnscaledTargets
from tests.diagnosis.profiles import NAN, alert, begun, chain
from tests.histories import stats

PROFILE = chain(2, "Relu", 0.5, 2.0)  # 64 features


def explain(
    error: float, left: float, rule: str = "exploding", sizes: Any = (8.0, 8.0, 8.0), rms: float = 1.0
) -> Diagnosis | None:
    history: History = begun(PROFILE, input_size=np.array(sizes), data_rms=np.array([rms, NAN, NAN]))
    for number, share in enumerate([0.9, 1.1, 1.0, left]):
        step = stats(number, {"fc": 1.0}, output_gradient=share * error, output_error=NAN)
        history.progress.look(step, count=number if number < 3 else 100)
    return UnscaledTargets().explain(history, PROFILE, [alert(rule)])


@pytest.mark.parametrize("rule", ["exploding", "update_ratio", "unstable"])
def test_an_error_of_hundreds_of_which_nearly_all_is_left(rule: str) -> None:
    found = explain(400.0, 0.96, rule)
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == ("unscaled_targets", "data_scaling", 0.85, ())
    assert (
        found.evidence[0] == "the gradient at the outputs had a norm of 400 at the first steps, and 96% of that is left"
    )
    assert found.remedy.startswith("standardise the targets: ")


@pytest.mark.parametrize(
    ("error", "left", "more"),
    [
        (0.2, 0.96, {}),  # of standardised targets
        (400.0, 0.96, {"rule": "vanishing"}),
        (400.0, 0.96, {"rms": 100.0}),  # the inputs are
        (400.0, 0.96, {"sizes": (8.0, 60.0, 600.0)}),  # the weights are too large
    ],
)
def test_what_it_does_not_explain(error: float, left: float, more: dict[str, Any]) -> None:
    assert explain(error, left, **more) is None


def test_what_is_left_is_told_where_it_is_known() -> None:
    found = explain(400.0, NAN)
    assert found is not None
    assert found.evidence[0] == "the gradient at the outputs had a norm of 400 at the first steps"


def test_classes_have_no_units() -> None:
    history = begun(PROFILE, input_size=np.array([8.0, 8.0, 8.0]))
    for number, gradient in enumerate([90.0, 110.0, 100.0]):
        step = stats(number, {"fc": 1.0}, output_gradient=gradient, output_error=1.0)
        history.progress.look(step, count=number if number < 2 else 100)
    assert UnscaledTargets().explain(history, PROFILE, [alert("exploding")]) is None


def test_a_last_bias_without_a_gradient_is_no_large_signal() -> None:
    """Targets of mean zero: the mean of the errors is next to nothing."""
    assert explain(400.0, 0.96, sizes=(4.0, 16.0, 250.0)) is not None


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="UnscaledTargets: min_error must be above 0"):
        UnscaledTargets(min_error=0.0)
