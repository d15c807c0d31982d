from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import History
from gradwatch.diagnosis import start
from gradwatch.profile import BackwardProfile, Segment, Weight
from tests.diagnosis.profiles import INF, NAN, begun, chain, first_step

PROFILE = chain(3, "Relu", 0.5, 2.0)


def given(*rms: float) -> History:
    return begun(PROFILE, data_rms=np.array(rms))


def test_the_inputs_are_the_largest_data() -> None:
    assert start.inputs(given(10.0, NAN, NAN, NAN), PROFILE) == start.Inputs("fc0", 10.0)
    assert start.inputs(given(1.0, NAN, 30.0, INF), None) == start.Inputs("fc2", 30.0)
    assert [start.Inputs("fc0", rms).are_unscaled for rms in (1.0, 3.0, 3.1)] == [False, False, True]


def test_inputs_that_are_not_known() -> None:
    assert start.inputs(given(NAN, NAN, NAN, NAN), PROFILE) is None
    assert start.inputs(begun(PROFILE), PROFILE) is None
    assert start.inputs(History(), PROFILE) is None


def test_where_the_largest_are_normalised_the_others_count() -> None:
    norm = Segment("bn", "norm", "NativeBatchNorm", 1.0, 1.0)
    profile = replace(PROFILE, segments=(*PROFILE.segments, norm))  # behind the first layer
    found = start.inputs(given(500.0, NAN, 20.0, NAN), profile)
    assert found == start.Inputs("fc2", 20.0)


def test_the_size_of_inputs_is_taken_out_by_a_normalisation_behind_their_layer() -> None:
    norm, history = Segment("bn", "norm", "NativeBatchNorm", 1.0, 1.0), given(8e4, NAN, NAN, NAN)
    after, before = (*PROFILE.segments, norm), (norm, *PROFILE.segments)
    assert start.inputs(history, replace(PROFILE, segments=after)) is None
    assert start.inputs(history, replace(PROFILE, segments=before)) is not None


def test_of_a_list_of_weights_the_size_of_all_together_is_known() -> None:
    """As in nn.ParameterList: 100 ** 2 over 64 + 32 outputs; what comes later is NaN."""
    weights = tuple(Weight(f"W.{i}", NAN, 64, outputs, outputs) for i, outputs in enumerate((64, 32)))
    odd = Weight("", 1.0, 8, 8, 8), Weight("7", 1.0, 8, 8, 8), Weight("V.0", 1.0, 0, 0, 0)  # of no list that is known
    profile = BackwardProfile(weights=(*weights, *odd))
    history = History()
    history.append(
        replace(first_step(PROFILE), layers=("W", "a", "b", "c"), param_norm=np.array([100.0, 1.0, 1.0, 1.0]))
    )
    assert start.initial_gains(history, profile) == pytest.approx({"W.0": 1e4 / 96, "W.1": 1e4 / 96})
    assert start.initial_gains(History(), profile) == {}


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
