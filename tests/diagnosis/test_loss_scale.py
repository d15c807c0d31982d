from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import LossScale
from gradwatch.profile import BackwardProfile, FirstNonFinite
from tests.diagnosis.profiles import INF, NAN, PROFILES, alert

HALF = BackwardProfile(half=True)


def explain(rule: str, profile: BackwardProfile | None = None, half: bool = False) -> Diagnosis | None:
    history = History.from_grad_norms(fc0=[1.0] * 3)
    history.half = half
    return LossScale().explain(history, profile, [alert(rule)])


@pytest.mark.parametrize("rule", ["overflow", "underflow", "skipped"])
def test_rules_that_say_so(rule: str) -> None:
    found = explain(rule)
    assert found is not None
    assert (found.cause, found.change) == ("loss_scale", "precision")
    assert found.evidence[0].startswith(f"gradients are too {'small' if rule == 'underflow' else 'large'} for float16")
    assert found.remedy.startswith("run autocast in bfloat16")


@pytest.mark.parametrize(("profile", "half"), [(HALF, False), (None, True)])
def test_nan_in_a_model_that_is_computed_in_float16(profile: BackwardProfile | None, half: bool) -> None:
    found = explain("nonfinite", profile, half)
    assert found is not None
    assert found.confidence == 0.9
    assert "too large" in found.evidence[0]


def test_a_gradient_that_vanishes_there_may_be_too_small() -> None:
    found = explain("vanishing", HALF)
    assert found is not None
    assert found.confidence == 0.6
    assert "too small" in found.evidence[0]


@pytest.mark.parametrize("rule", ["nonfinite", "vanishing", "dead", "exploding"])
def test_in_float32_it_is_not_the_precision(rule: str) -> None:
    assert explain(rule) is None
    assert explain(rule, PROFILES["small"]) is None


def test_where_it_came_up_first() -> None:
    profile = replace(HALF, nonfinite=FirstNonFinite("backward", "fc0", "Addmm"))
    found = explain("overflow", profile)
    assert found is not None
    assert found.evidence[-1] == "the first was made by Addmm in fc0, in the backward pass"


def test_steps_that_a_scaler_skipped() -> None:
    history = History()
    step = History.from_grad_norms(fc0=[NAN]).latest
    assert step is not None
    for number in range(50):
        history.append(replace(step, step=number, grad_norm=np.array([INF]), skipped=True))
    found = LossScale().explain(history, None, [alert("skipped")])
    assert found is not None
    assert found.evidence[1] == "the gradient scaler skipped 50 of 50 steps"


def test_the_layers_are_those_that_lost_their_gradient() -> None:
    history = History.from_grad_norms(a=[INF], b=[1.0], c=[NAN], d=[0.0], frozen=[None])
    found = LossScale().explain(history, None, [alert("overflow", None)])
    assert found is not None
    assert found.layers == ("a", "c", "d")
