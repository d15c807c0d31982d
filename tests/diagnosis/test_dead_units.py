from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Alert, Diagnosis, History, Severity
from gradwatch.diagnosis import DeadUnits
from gradwatch.profile import BackwardProfile, Segment, Weight
from tests.diagnosis.profiles import DEAD, PROFILES, activation, alert, chain, first_step, linear

CUT = (linear("head", 1.0), activation("fc1", "Relu", 0.0, derivative=DEAD))


def profile_of(width: int, depth: int = 2) -> BackwardProfile:
    weights = [Weight(f"fc{i}.weight", 2.0, width, width, width) for i in range(depth)]
    return BackwardProfile(CUT, weights=(*weights, Weight("head.weight", 1.0, width, 10, 10)))


def explain(
    profile: BackwardProfile | None, born: bool = True, bias: float = 0.0, update: float = 0.5
) -> Diagnosis | None:
    """All layers but the head are dead, from the first step on, or after steps of this size."""
    model = profile or profile_of(64)
    hidden = [w.name.removesuffix(".weight") for w in model.weights[:-1]]
    history = History()
    for step in range(8):
        first = first_step(model, param_norm=np.array([np.hypot(w.norm, bias * w.outputs**0.5) for w in model.weights]))
        norms = np.array([0.0 if born or step > 4 else 1.0] * len(hidden) + [1.0])
        history.append(replace(first, step=step, grad_norm=norms, total_update=update if step else None))
    return DeadUnits().explain(history, profile, [alert("dead", name, step=7, value=0.0) for name in hidden])


def test_born_dead_of_their_biases() -> None:
    found = explain(profile_of(64), bias=5.0)
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == (
        "dead_units",
        "init_scale",
        0.9,
        ("fc1", "fc0"),
    )
    assert found.evidence[:2] == (
        "2 of 3 layers get a gradient of exactly zero, the last of them is fc1",
        "the derivative of Relu in fc1.act is zero for 100% of its inputs",
    )
    assert "have a size of 5" in found.evidence[2]
    assert found.remedy == "set the initial biases of fc0 ... head to 0"


def test_the_layer_with_the_biases_comes_first() -> None:
    """Of the others, that got nothing because of it, the one nearest the output."""
    model, history = profile_of(64, depth=3), History()
    norms = np.array([w.norm for w in model.weights])
    norms[0] = np.hypot(norms[0], 5.0 * 8.0)
    for step in range(8):
        grads = np.array([0.0, 0.0, 0.0, 1.0])
        history.append(replace(first_step(model, param_norm=norms), step=step, grad_norm=grads))
    found = DeadUnits().explain(history, model, [alert("dead", f"fc{i}", step=7, value=0.0) for i in range(3)])
    assert found is not None
    assert (found.remedy, found.layers) == ("set the initial biases of fc0 to 0", ("fc0", "fc2", "fc1"))


def test_the_worst_hit_comes_first_whichever_died_first() -> None:
    history = History()
    history.append(first_step(profile_of(64)))
    deaths = [alert("dead", name, step=step, value=0.0) for step, name in enumerate(("fc1", "fc0"))]
    found = DeadUnits().explain(history, profile_of(64), deaths)
    assert found is not None
    assert found.layers == ("fc1", "fc0")
    isolated = [alert("dead", "fc0", value=0.0), alert("dead", "fc1", value=0.0, severity=Severity.WARNING)]
    found = DeadUnits().explain(history, profile_of(64), isolated)
    assert found is not None
    assert found.layers == ("fc0", "fc1")


def test_layers_that_the_history_has_forgotten() -> None:
    long = "x" * 300
    deaths = [alert("dead", name, value=0.01) for name in (long, "fc1")]
    for history in (History(), History.from_grad_norms(fc1=[0.0])):
        found = DeadUnits().explain(history, profile_of(64), deaths)
        assert found is not None
        assert found.layers == ("fc1", long)


def test_born_dead_of_being_narrow() -> None:
    """Ten layers of two units: 1 - (1 - 1/4)^10."""
    found = explain(profile_of(2, depth=10))
    assert found is not None
    assert (found.change, found.confidence) == ("width", 0.9)
    assert f"the chance that one is born dead is {1 - 0.75**10:.0%}" in found.evidence[-1]
    assert found.remedy == "widen fc0 ... fc9 from 2 to 10 units"
    assert DeadUnits().chance / 2 + 1e-4 > 1 - (1 - 2.0**-10) ** 10


def test_born_dead_for_no_reason_that_is_known() -> None:
    found = explain(profile_of(64))
    assert found is not None
    assert (found.change, found.confidence) == ("activation", 0.4)


@pytest.mark.parametrize(("step", "change"), [(6, "init_scale"), (60, "lr")])
def test_nearly_all_examples_pass_nothing_on(step: int, change: str) -> None:
    """Few do, so there is a gradient: it is known by the alert alone when that was so."""
    model = profile_of(64)
    first = first_step(model, param_norm=np.array([np.hypot(w.norm, 5.0 * w.outputs**0.5) for w in model.weights]))
    history = History()
    for number in range(70):
        history.append(replace(first, step=1000 + number, total_update=0.1))
    found = DeadUnits().explain(history, model, [alert("dead", "fc0", step=1000 + step, value=0.01)])
    assert found is not None
    assert found.change == change


def test_dead_later_of_a_step_that_was_too_large() -> None:
    found = explain(profile_of(64), born=False, bias=5.0)
    assert found is not None
    assert (found.change, found.confidence, found.remedy) == ("lr", 0.5, "divide the learning rate by 10")


def test_dead_later_without_such_a_step() -> None:
    found = explain(profile_of(64), born=False, update=2e-3)
    assert found is not None
    assert (found.change, found.confidence) == ("activation", 0.4)
    assert found.evidence[-1] == "they had a gradient before, and no step moved the weights by more than 0.002"


def test_without_a_probed_step() -> None:
    found = explain(None)
    assert found is not None
    assert found.confidence == 0.3
    assert "a probed step would settle it" in found.evidence[-1]


def test_a_gradient_that_vanishes_in_dead_units() -> None:
    found = DeadUnits().explain(History(), chain(6, "Relu", 1e-3, 2.0), [alert("vanishing")])
    assert found is not None
    assert found.layers == tuple(f"fc{i}.act" for i in range(6))


@pytest.mark.parametrize("name", ["small", "healthy", "sigmoids", "nothing", "large"])
def test_units_that_live(name: str) -> None:
    assert DeadUnits().explain(History(), PROFILES[name], [alert("vanishing")]) is None


@pytest.mark.parametrize(("argument", "value"), [("min_share", 0.0), ("large_bias", 0.0), ("chance", 2.0)])
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"DeadUnits: {argument} must be above 0"):
        DeadUnits(**{argument: value})


def test_where_no_activation_is_flat_no_relu_is_to_blame() -> None:
    """As of an embedding that nothing asks for any more."""
    history = History.from_grad_norms(table=[1.0] * 3 + [0.0] * 60, head=[1.0] * 63)
    assert history.latest is not None
    history.append(replace(history.latest, step=63, total_update=1e-3))
    alerts = [Alert(52, "dead", "table", Severity.WARNING, 0.0, 0.0, "")]
    found = DeadUnits().explain(history, BackwardProfile((Segment("head", "weight", "Addmm", 1.0, 1.0),)), alerts)
    assert found is not None
    assert "ReLU" not in found.remedy
    assert (found.change, found.confidence) == ("", 0.3)
