from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import Bottleneck
from gradwatch.profile import BackwardProfile, Segment, TimeSteps
from tests.diagnosis.profiles import PROFILES, activation, alert, begun, linear, weight

LAYERS = [s for i in range(4) for s in (activation(f"a{i}", "Relu", 0.5), linear(f"a{i}", 2.0))]


def explain(odd: Segment, rule: str = "vanishing") -> Diagnosis | None:
    """Four healthy layers, the odd one, and four more."""
    return Bottleneck().explain(History(), BackwardProfile((*LAYERS, odd, *LAYERS)), [alert(rule)])


def test_one_tight_layer() -> None:
    found = explain(linear("tight", 2e-8))
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("bottleneck", ("tight",), "init_scale")
    assert found.evidence == (
        "in one place, Addmm in tight, the gradient shrinks 7.1e+03-fold, 1e+04 times more than where others of its "
        "kind are",
        "from the output to the input it shrinks 1e+04-fold; without that place it keeps its size",
    )
    assert found.remedy == "multiply the initial weights of tight by 1e+04: it then passes what others do"


def test_a_layer_that_began_at_zero_is_no_larger_by_a_factor() -> None:
    tight = linear("tight", 2e-8)
    profile = BackwardProfile((*LAYERS, tight, *LAYERS), weights=(weight("tight", 2e-8),))
    history = begun(profile, param_norm=np.zeros(1))
    found = Bottleneck().explain(history, profile, [alert("vanishing")])
    assert found is not None
    assert found.remedy.startswith("draw the initial weights of tight at random")
    assert (found.change, found.confidence) == ("init_scale", 0.5)


def test_one_that_blows_up() -> None:
    found = explain(linear("loud", 2e6), rule="exploding")
    assert found is not None
    assert found.remedy.startswith("multiply the initial weights of loud by 0.001: ")


def test_a_recurrent_layer_that_blows_up_is_no_single_place() -> None:
    loud = linear("loud", 2e6)
    for length, told in ((30, False), (4, True)):
        steps = TimeSteps("loud", np.full(length - 1, 2.0), np.ones(length))
        profile = BackwardProfile((*LAYERS, loud, *LAYERS), time_steps=(steps,))
        assert (Bottleneck().explain(History(), profile, [alert("exploding")]) is not None) is told


def test_one_that_a_step_has_blown_up() -> None:
    loud = linear("loud", 2e6)
    profile = BackwardProfile((*LAYERS, loud, *LAYERS), weights=(replace(weight("loud", 2e6), norm=2e3),))
    before = replace(profile, weights=(weight("loud", 2.0),))
    assert Bottleneck().explain(History(), profile, [alert("exploding")]) is not None
    assert Bottleneck().explain(begun(before), profile, [alert("exploding")]) is None


def test_one_activation_out_of_range() -> None:
    found = explain(activation("odd", "Sigmoid", 1e-7))
    assert found is not None
    assert (found.layers, found.change) == (("odd.act",), "norm")


def test_an_operation_of_another_kind() -> None:
    found = explain(Segment("gate", "multiply", "Mul", 1e-7, 1.0))
    assert found is not None
    assert (found.layers, found.change) == (("gate",), "residual")
    assert math.isclose(found.confidence, 0.95)


@pytest.mark.parametrize("name", ["small", "sigmoids", "healthy", "dead", "nothing", "NaN"])
def test_what_all_layers_share_is_no_bottleneck(name: str) -> None:
    assert Bottleneck().explain(History(), PROFILES[name], [alert("vanishing")]) is None


def test_half_of_the_decay_is_not_all_of_it() -> None:
    second = linear("second", 2e-8)
    profile = BackwardProfile((*LAYERS, linear("first", 2e-8), *LAYERS, second))
    assert Bottleneck().explain(History(), profile, [alert("vanishing")]) is None


def test_the_limit_is_above_zero() -> None:
    with pytest.raises(ValueError, match="Bottleneck: severe must be above 0"):
        Bottleneck(severe=0.0)
