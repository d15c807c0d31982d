from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import History
from gradwatch.diagnosis import start
from gradwatch.profile import BackwardProfile, Segment, Weight
from tests.diagnosis.profiles import NAN, begun, chain, first_step, weight

PROFILE = chain(3, "Relu", 0.5, 2.0)


def test_the_inputs_by_the_gradients_of_weights_and_biases() -> None:
    found = start.inputs(begun(PROFILE, input_size=np.array([80.0, 9.0, 9.0, 9.0])), PROFILE)
    assert found is not None
    assert (found.layer, found.norm, found.rms, found.are_unscaled) == ("fc0", 80.0, 10.0, True)


@pytest.mark.parametrize("sizes", [[NAN, 9.0, 9.0, 9.0], [80.0, NAN, NAN, NAN], [NAN] * 4])
def test_inputs_that_are_not_known(sizes: list[float]) -> None:
    assert start.inputs(begun(PROFILE, input_size=np.array(sizes)), PROFILE) is None
    assert start.inputs(begun(PROFILE), PROFILE) is None
    assert start.inputs(History(), PROFILE) is None


def test_inputs_of_a_layer_whose_bias_a_normalisation_takes_out_are_not_known() -> None:
    """Its gradient is rounding, and the ratio to it whatever it likes."""
    norm, sizes = Segment("bn", "norm", "NativeBatchNorm", 1.0, 1.0), np.array([8e5, 9.0, 9.0, 9.0])
    after, before = (*PROFILE.segments, norm), (norm, *PROFILE.segments)
    assert start.inputs(begun(PROFILE, input_size=sizes), replace(PROFILE, segments=after)) is None
    assert start.inputs(begun(PROFILE, input_size=sizes), replace(PROFILE, segments=before)) is not None


def test_inputs_of_a_layer_of_two_matrices_are_not_known() -> None:
    recurrent = BackwardProfile(weights=(replace(weight("fc0", 1.0), name="fc0.hh"), weight("fc0", 1.0)))
    history = History()
    history.append(replace(first_step(PROFILE), input_size=np.array([80.0, 9.0, 9.0, 9.0])))
    assert start.inputs(history, recurrent) is None


def test_weights_are_as_they_were_at_the_first_step() -> None:
    """A step blew fc0 up a thousandfold, and the first step saw biases beside the weights of fc1."""
    now = replace(
        PROFILE, weights=(replace(PROFILE.weights[0], norm=1e3 * PROFILE.weights[0].norm), *PROFILE.weights[1:])
    )
    sizes = np.array([w.norm for w in PROFILE.weights]) * [1.0, 1.5, 1.0, 1.0]
    found = start.initial_gains(begun(PROFILE, param_norm=sizes), now)
    assert list(found) == ["fc0", "fc1", "fc2", "head"]
    assert list(found.values()) == pytest.approx([2.0, 2.0, 2.0, 1.0])


def test_the_excess_of_weights_is_relative_to_what_makes_up_for_the_activations() -> None:
    found = start.excess_of_weights(History(), PROFILE)
    assert list(found.values()) == pytest.approx([0.0, 0.0, 0.0, math.log(0.5)])
    norm = Segment("norm", "norm", "NativeLayerNorm", 1.0, 1.0)
    assert start.excess_of_weights(History(), replace(PROFILE, segments=(*PROFILE.segments, norm))) == {}
    assert start.excess_of_weights(History(), None) == {}


def test_biases_are_what_the_first_step_had_beyond_the_weights() -> None:
    sizes = np.array([math.hypot(w.norm, bias * 8.0) for w, bias in zip(PROFILE.weights, (5.0, 0.0, 0.5, 0.0))])
    assert start.initial_biases(begun(PROFILE, param_norm=sizes), PROFILE) == {
        "fc0": pytest.approx(5.0),
        "fc2": pytest.approx(0.5),
    }


def test_the_weights_of_normalisations() -> None:
    norm = Segment("fc1", "norm", "NativeLayerNorm", 0.01, 1.0)
    profile = replace(PROFILE, segments=(norm,))
    numel = np.array([64.0, 128.0, 64.0, 64.0])
    history = begun(PROFILE, param_norm=np.array([9.0, 0.8, 9.0, 9.0]), numel=numel)
    assert start.initial_norm_weights(history, profile) == {"fc1": pytest.approx(0.1)}  # 64 of 0.1, and 64 of 0
    assert start.initial_norm_weights(begun(PROFILE), profile) == {}


def test_updates_of_the_first_steps_and_of_all() -> None:
    history = begun(PROFILE, [NAN, 0.2, 0.9, 0.1, 0.3])
    assert (start.first_update(history), start.largest_update(history)) == (0.2, 0.9)
    assert math.isnan(start.first_update(History()))
    assert math.isnan(start.largest_update(History()))


def test_the_first_update_may_be_out_of_the_window() -> None:
    history = History(window=2)
    for step in range(4):
        history.append(replace(first_step(PROFILE), step=step, total_update=0.5))
    assert math.isnan(start.first_update(history))


def test_a_weight_of_no_size_has_no_gain() -> None:
    empty = BackwardProfile(weights=(Weight("fc.weight", 0.0, 4, 4, 4), Weight("out.weight", 1.0, 0, 0, 0)))
    assert start.initial_gains(History(), empty) == {}
