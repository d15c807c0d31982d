from __future__ import annotations

import numpy as np
import pytest

from gradwatch import Diagnosis
from gradwatch.diagnosis import UnscaledInputs
from tests.diagnosis.profiles import INF, NAN, alert, begun, chain

PROFILE = chain(2, "Relu", 0.5, 2.0)  # 64 features


def explain(rms: float, rule: str = "exploding") -> Diagnosis | None:
    history = begun(PROFILE, data_rms=np.array([rms, NAN, NAN]))
    return UnscaledInputs().explain(history, PROFILE, [alert(rule)])


@pytest.mark.parametrize("rule", ["exploding", "unscaled_inputs", "saturated", "nonfinite", "overflow", "spike"])
def test_a_hundred_times_too_large(rule: str) -> None:
    found = explain(100.0, rule)
    assert found is not None
    assert (found.cause, found.change, found.layers, found.confidence) == (
        "unscaled_inputs",
        "data_scaling",
        ("fc0",),
        0.95,
    )
    assert found.evidence == ("the inputs of fc0 have a root mean square of 100, standardised ones have 1",)
    assert found.remedy.startswith("standardise the inputs: ")
    assert "dividing all inputs of fc0 by 100" in found.remedy


def test_somewhat_too_large_is_less_certain() -> None:
    found = explain(5.0)
    assert found is not None
    assert found.confidence == 0.85


@pytest.mark.parametrize("rule", ["nonfinite", "overflow", "spike"])
def test_what_has_other_causes_more_often_needs_a_clear_case(rule: str) -> None:
    assert explain(5.0, rule) is None


@pytest.mark.parametrize("rms", [1.0, 3.0, 0.0, NAN, INF])
def test_standardised_inputs_have_a_root_mean_square_of_one(rms: float) -> None:
    assert explain(rms) is None


def test_they_do_not_make_gradients_vanish() -> None:
    assert explain(100.0, "vanishing") is None


def test_without_a_probed_step_and_before_any_look() -> None:
    history = begun(PROFILE, data_rms=np.array([100.0, NAN, NAN]))
    assert UnscaledInputs().explain(history, None, [alert("exploding")]) is not None
    assert UnscaledInputs().explain(begun(PROFILE), PROFILE, [alert("exploding")]) is None


def test_the_limit_is_above_one() -> None:
    with pytest.raises(ValueError, match=r"UnscaledInputs: min_rms must be above 1, got 1\.0"):
        UnscaledInputs(min_rms=1.0)


@pytest.mark.parametrize(("error", "both"), [(50.0, False), (500.0, True)])
def test_targets_that_are_further_off_than_such_inputs_bring(error: float, both: bool) -> None:
    """The last layer's biases get the mean error, its weights that times what it is given."""
    last = error * np.hypot(1.0, 8.0)
    history = begun(
        PROFILE,
        input_size=np.array([800.0, 8.0, 8.0]),
        data_rms=np.array([100.0, NAN, NAN]),
        grad_norm=np.array([1.0, 1.0, last]),
    )
    found = UnscaledInputs().explain(history, PROFILE, [alert("exploding")])
    assert found is not None
    assert found.remedy.endswith("standardise the targets likewise") == both
    assert any("the first mean error is about 2.5e+02" in sentence for sentence in found.evidence) == both


@pytest.mark.parametrize(("update", "confidence"), [(0.1, 0.85), (0.7, 0.85), (0.8, 0.4)])
def test_a_first_step_that_inputs_of_that_size_do_not_make(update: float, confidence: float) -> None:
    history = begun(PROFILE, [update], data_rms=np.array([5.0, NAN, NAN]))  # 5 times as large, 0.03 * 25
    found = UnscaledInputs().explain(history, PROFILE, [alert("exploding")])
    assert found is not None
    assert found.confidence == confidence
    assert found.evidence[-1].startswith("but a first step") == (confidence < 0.5)


def test_tiny_inputs_where_they_are_told_of() -> None:
    found = explain(7.5e-6, "unscaled_inputs")
    assert found is not None
    assert (found.change, found.layers, found.confidence) == ("data_scaling", ("fc0",), 0.9)
    assert found.remedy.endswith("multiplying all inputs of fc0 by 1.3e+05 is the least")
    assert explain(7.5e-6, "exploding") is None


@pytest.mark.parametrize(
    ("rms", "named"), [([0.9, 1e-4, NAN], "fc1"), ([20.0, 500.0, NAN], "fc1"), ([NAN, 50.0, 1.0], "fc1")]
)
def test_of_several_layers_it_is_the_one_that_the_alert_is_about(rms: list[float], named: str) -> None:
    history = begun(PROFILE, data_rms=np.array(rms))
    both = alert("unscaled_inputs", None, layers=("fc0", "fc1"))
    for told in (alert("unscaled_inputs", "fc1"), both):
        found = UnscaledInputs().explain(history, PROFILE, [told])
        assert found is not None
        assert found.layers == (named,)
        assert f"the inputs of {named} have" in found.evidence[0]
