from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import LargeWeights
from gradwatch.profile import BackwardProfile, Segment, Weight
from tests.diagnosis.profiles import NAN, PROFILES, alert, begun, chain
from tests.histories import slow, stats


def explain(profile: BackwardProfile | None, history: History | None = None) -> Diagnosis | None:
    return LargeWeights().explain(history or History(), profile, [alert("exploding")])


def test_three_times_he() -> None:
    found = explain(chain(6, "Relu", 0.5, 18.0))
    assert found is not None
    assert (found.cause, found.change, found.confidence) == ("large_weights", "init_scale", 0.9)
    assert found.layers == tuple(f"fc{i}" for i in reversed(range(6)))
    assert "have a squared gain of 18 per layer; 2 would make up for the activations" in found.evidence[0]
    assert f"the signal grows {9**3:.2g}-fold over 6 layers" in found.evidence[1]
    assert found.remedy.startswith("multiply the initial weights of fc0 ... fc5 by 0.333: ")


def test_weights_in_a_list() -> None:
    """A model written with parameters alone: x @ w + b, of which a step has made NaN by the time of the probe."""
    weights = tuple(Weight(f"W.{i}", NAN, 64, 64, 64) for i in range(6))
    relu = Segment("Net", "activation", "Relu", NAN, NAN)
    history = History()
    history.append(stats(0, {"W": 1.0, "b": 1.0}, param_norm=np.array([64 * math.sqrt(6), 0.0])))
    found = explain(BackwardProfile((relu,), weights=weights), history)
    assert found is not None
    assert found.remedy.startswith("multiply the initial weights of W.0 ... W.5 by 0.177: the squared gain is then 2")


def test_weights_that_a_step_has_blown_up_are_no_cause() -> None:
    before = chain(6, "Relu", 0.5, 2.0)
    assert explain(chain(6, "Relu", 0.5, 1e6), begun(before)) is None


def test_nor_are_those_before_a_normalisation() -> None:
    large = PROFILES["large"]
    norm = Segment("norm", "norm", "NativeBatchNorm", 1.0, 1.0)
    assert explain(replace(large, segments=(*large.segments, norm))) is None


def test_one_layer_twice_too_large_is_not_much() -> None:
    assert explain(chain(1, "Relu", 0.5, 8.0)) is None


@pytest.mark.parametrize(("left", "told"), [(0.8, True), (0.6, False), (float("nan"), False)])
def test_less_is_enough_where_it_has_held_training_up(left: float, told: bool) -> None:
    profile = chain(3, "Relu", 0.5, 7.0)
    history = begun(profile)
    for step in slow({"fc0": 1.0}, left):
        history.progress.look(step, count=step.step + 1)
    assert (explain(profile, history) is not None) is told


def test_large_inputs_are_the_better_explanation() -> None:
    profile = chain(6, "Relu", 0.5, 18.0)
    found = explain(profile, begun(profile, data_rms=np.array([1e4, *[NAN] * 6])))
    assert found is not None
    assert found.confidence == 0.5


def test_without_a_probed_step_the_growing_signal_tells() -> None:
    profile = chain(2, "Relu", 0.5, 2.0)
    found = explain(None, begun(profile, input_size=np.array([1.0, 10.0, 100.0])))
    assert found is not None
    assert (found.confidence, found.remedy) == (0.5, "multiply the initial weights of every layer by 0.1")
    assert found.layers[0] == profile.weights[-1].name.removesuffix(".weight")
    assert explain(None, begun(profile, input_size=np.array([1.0, 2.0, 4.0]))) is None
    assert math.isclose(found.confidence, 0.5)


@pytest.mark.parametrize("name", ["small", "healthy", "sigmoids", "nothing", "residual"])
def test_the_weights_of_others_are_not_too_large(name: str) -> None:
    assert explain(PROFILES[name]) is None


@pytest.mark.parametrize(("argument", "value"), [("min_log_gain", 0.0), ("min_growth", 1.0)])
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"LargeWeights: {argument} must be above"):
        LargeWeights(**{argument: value})
