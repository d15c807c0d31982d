from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis
from gradwatch.diagnosis import UnscaledInputs
from gradwatch.diagnosis.start import inputs
from tests.diagnosis.profiles import NAN, alert, begun, chain

PROFILE = chain(2, "Relu", 0.5, 2.0)  # 64 features


def explain(norm: float, rule: str = "exploding") -> Diagnosis | None:
    history = begun(PROFILE, input_size=np.array([norm, 8.0, 8.0]))
    return UnscaledInputs().explain(history, PROFILE, [alert(rule)])


@pytest.mark.parametrize("rule", ["exploding", "update_ratio", "saturated", "nonfinite", "overflow", "spike"])
def test_a_hundred_times_too_large(rule: str) -> None:
    found = explain(800.0, rule)
    assert found is not None
    assert (found.cause, found.change, found.layers, found.confidence) == (
        "unscaled_inputs",
        "data_scaling",
        ("fc0",),
        0.95,
    )
    assert found.evidence == (
        "the inputs of fc0 have a norm of 800 over 64 features: 100 in the root mean square, standardised ones have 1",
    )
    assert found.remedy.startswith("standardise the inputs: ")
    assert "dividing all inputs of fc0 by 100" in found.remedy


def test_somewhat_too_large_is_less_certain() -> None:
    found = explain(40.0)
    assert found is not None
    assert found.confidence == 0.85


@pytest.mark.parametrize("rule", ["nonfinite", "overflow", "spike"])
def test_what_has_other_causes_more_often_needs_a_clear_case(rule: str) -> None:
    assert explain(40.0, rule) is None


def test_biases_whose_gradients_cancel_say_nothing_of_the_inputs() -> None:
    """Features of size 1, examples that have nothing in common: the bias's gradient is next to nothing."""
    rng = np.random.default_rng(0)
    x, delta = rng.standard_normal((512, 64)), rng.standard_normal((512, 64))
    delta -= delta.mean(axis=0)
    weights, biases = np.linalg.norm(delta.T @ x), np.linalg.norm(delta.sum(axis=0)) + 1e-3
    assert weights / biases > 1e3
    history = begun(PROFILE, input_size=np.array([weights / biases, 8.0, 8.0]), grad_norm=np.array([weights, 1.0, 1.0]))
    last = replace(PROFILE.segments[-1], gain=1.0, grad_norm=float(np.linalg.norm(delta)))
    seen = replace(PROFILE, segments=(*PROFILE.segments[:-1], last), step=0)
    found = inputs(history, seen)
    assert found is not None
    assert found.rms == pytest.approx(1.0, abs=0.1)
    assert UnscaledInputs().explain(history, seen, [alert("exploding")]) is None


@pytest.mark.parametrize("norm", [8.0, 24.0, 0.0, NAN])
def test_standardised_inputs_have_a_root_mean_square_of_one(norm: float) -> None:
    assert explain(norm) is None


def test_they_do_not_make_gradients_vanish() -> None:
    assert explain(800.0, "vanishing") is None


def test_without_a_probed_step_the_number_of_features_is_not_known() -> None:
    history = begun(PROFILE, input_size=np.array([800.0, 8.0, 8.0]))
    assert UnscaledInputs().explain(history, None, [alert("exploding")]) is None


def test_the_limit_is_above_one() -> None:
    with pytest.raises(ValueError, match=r"UnscaledInputs: min_rms must be above 1, got 1\.0"):
        UnscaledInputs(min_rms=1.0)


@pytest.mark.parametrize(("error", "both"), [(50.0, False), (500.0, True)])
def test_targets_that_are_further_off_than_such_inputs_bring(error: float, both: bool) -> None:
    """The last layer's biases get the mean error, its weights that times what it is given."""
    last = error * np.hypot(1.0, 8.0)
    history = begun(PROFILE, input_size=np.array([800.0, 8.0, 8.0]), grad_norm=np.array([1.0, 1.0, last]))
    found = UnscaledInputs().explain(history, PROFILE, [alert("exploding")])
    assert found is not None
    assert found.remedy.endswith("standardise the targets likewise") == both
    assert any("the first mean error is about 2.5e+02" in sentence for sentence in found.evidence) == both


@pytest.mark.parametrize(("update", "confidence"), [(0.1, 0.85), (0.7, 0.85), (0.8, 0.4)])
def test_a_first_step_that_inputs_of_that_size_do_not_make(update: float, confidence: float) -> None:
    history = begun(PROFILE, [update], input_size=np.array([40.0, 8.0, 8.0]))  # 5 times as large, 0.03 * 25
    found = UnscaledInputs().explain(history, PROFILE, [alert("exploding")])
    assert found is not None
    assert found.confidence == confidence
    assert found.evidence[-1].startswith("but a first step") == (confidence < 0.5)
