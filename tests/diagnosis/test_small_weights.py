from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import SmallWeights, small_weights
from gradwatch.profile import BackwardProfile
from tests.diagnosis.profiles import PROFILES, activation, alert, begun, chain, linear, weight
from tests.histories import history_of, layers, stats

VANISHING = [alert("vanishing")]


def explain(profile: BackwardProfile | None, history: History | None = None) -> Diagnosis | None:
    return SmallWeights().explain(history or History(), profile, VANISHING)


def test_pytorch_s_default_under_relu() -> None:
    """Weights of variance 1 / (3 fan_in) pass a third, and 2 is what ReLU needs: sqrt(6) times too small."""
    found = explain(chain(12, "Relu", 0.5, 1 / 3))
    assert found is not None
    shrinks = math.exp(-(11 * math.log(6) + math.log(2)) / 2)
    assert (found.cause, found.change, found.confidence) == ("small_weights", "init_scale", 0.9)
    assert found.layers == tuple(f"fc{i}" for i in range(12)) + ("head",)
    assert f"over 12 layers the gradient shrinks {1 / shrinks:.2g}-fold" in found.evidence[1]
    assert found.remedy.startswith("draw the initial weights of fc0 ... head")
    assert "sqrt(2 / fan_in)" in found.remedy


@pytest.mark.parametrize(("operation", "passes", "needed"), [("Tanh", 1.0, 1.0), ("Relu", 0.5, 2.0)])
def test_layers_that_are_alike_are_multiplied(operation: str, passes: float, needed: float) -> None:
    profile = chain(20, operation, passes, needed / 4)
    alike = replace(profile, weights=profile.weights[:-1])
    found = explain(alike)
    assert found is not None
    assert found.remedy.startswith("multiply the initial weights of fc0 ... fc19 by 2: ")


def test_layers_that_began_at_zero_are_not_told_of() -> None:
    small = chain(12, "Relu", 0.5, 1 / 3)
    sizes = np.array([w.norm for w in small.weights])
    sizes[5] = 0.0
    found = explain(small, begun(small, param_norm=sizes))
    assert found is not None
    assert "fc5" not in found.layers
    assert "over 11 layers the gradient" in found.evidence[1]
    assert explain(small, begun(small, param_norm=np.zeros(13))) is None


def test_the_remedy_is_for_layers_that_the_evidence_is_about() -> None:
    """The first layer, which no gradient goes through, is small as well, and of the head it is not known."""
    profile = BackwardProfile((linear("head", 1e-6), activation("fc0", "Relu", 0.5)), weights=(weight("fc0", 0.1),))
    found = explain(profile, begun(profile))
    assert found is not None
    assert found.layers == ("head",)


def test_where_no_gradient_is_left_the_first_step_tells() -> None:
    segments = (linear("head", 1.0), activation("fc3", "Relu", 0.0))
    profile = replace(chain(4, "Relu", 0.5, 0.01), segments=segments)
    found = explain(profile, begun(profile))
    assert found is not None
    assert (found.confidence, found.layers) == (0.8, ("fc0", "fc1", "fc2", "fc3", "head"))
    assert "have a squared gain of 0.0251 per layer; 2 would make up for the activations" in found.evidence[0]
    assert explain(replace(profile, weights=()), begun(profile)) is None


def test_without_a_probed_step_the_fading_signal_tells() -> None:
    profile = chain(4, "Relu", 0.5, 0.1)
    found = explain(None, begun(profile, input_size=np.array([16.0, 8.0, 4.0, 2.0, 1.0])))
    assert found is not None
    assert (found.confidence, found.remedy) == (0.5, "multiply the initial weights of every layer by 2")
    assert explain(None, begun(profile, input_size=np.array([4.0, 3.0, 2.0, 1.5, 1.0]))) is None
    assert explain(None) is None


@pytest.mark.parametrize("name", ["sigmoids", "healthy", "large", "nothing", "NaN", "residual"])
def test_the_weights_of_others_are_not_too_small(name: str) -> None:
    assert explain(PROFILES[name]) is None


def test_a_small_decay_is_little_evidence() -> None:
    found = explain(chain(3, "Relu", 0.5, 1.0))
    assert found is not None
    assert found.confidence == pytest.approx(0.9 * 3 * math.log(2) / 6, abs=0.01)


@pytest.mark.parametrize(("argument", "value"), [("min_share", 0.0), ("min_share", 2.0), ("min_fading", 1.0)])
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"SmallWeights: {argument} must be"):
        SmallWeights(**{argument: value})


def test_a_network_that_has_woken_up_and_layers_that_died_of_it() -> None:
    """Late in a run the gradient passes, or nothing does; what the weights were at first still tells."""
    tiny, awake = chain(6, "Relu", 0.5, 0.01), chain(6, "Relu", 0.5, 2.0)
    for rule in ("vanishing", "dead"):
        found = SmallWeights().explain(begun(tiny), awake, [alert(rule)])
        assert found is not None
        assert (found.confidence, found.layers[0]) == (0.8, "fc0")
    assert SmallWeights().explain(begun(awake), awake, [alert("dead")]) is None


@pytest.mark.parametrize(("step", "explained"), [(9, True), (90, False)])
@pytest.mark.parametrize("stride", [1, 10])
def test_what_dies_later_dies_of_something_else(step: int, explained: bool, stride: int) -> None:
    """Counted in steps that were recorded, whatever the user's numbers."""
    history = history_of([stats(i * stride, layers([0.0, 1.0])) for i in range(100)])
    died = alert("dead", step=step * stride)
    assert small_weights._from_the_start(history, [died]) is explained
