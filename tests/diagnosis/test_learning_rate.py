from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import LearningRate
from gradwatch.diagnosis.learning_rate import STEADY, steady_growth, steps_of_shock
from gradwatch.profile import BackwardProfile, TimeSteps
from tests.diagnosis.profiles import NAN, PROFILES, alert, begun, chain
from tests.histories import layers, stats

HEALTHY = chain(6, "Relu", 0.5, 2.0)


def explain(
    updates: Sequence[float], rule: str = "update_ratio", profile: BackwardProfile | None = HEALTHY, times: int = 1
) -> Diagnosis | None:
    alerts = [alert(rule, step=step) for step in range(times)]
    return LearningRate().explain(begun(profile or HEALTHY, updates), profile, alerts)


def test_a_first_step_that_is_too_large() -> None:
    found = explain([1.08, 0.2])
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == ("learning_rate", "lr", 0.8, ("fc0",))
    assert found.evidence == ("the first step moved the weights by 1.1 of their size; 0.01 is healthy",)
    assert found.remedy == "divide the learning rate by 108"


def test_a_later_step() -> None:
    found = explain([0.01, 0.01, 0.5])
    assert found is not None
    assert (found.confidence, found.remedy) == (0.6, "divide the learning rate by 10")
    assert found.evidence == ("one step moved the weights by 0.5 of their size",)


def test_no_step_has_taken_a_gradient_that_was_never_there() -> None:
    history = begun(HEALTHY, [1.08, 0.2])
    dead = alert("dead", "fc0", value=0.0)
    assert LearningRate().explain(history, HEALTHY, [dead]) is not None
    history.grad_norm[:, 0] = 0.0
    assert LearningRate().explain(history, HEALTHY, [dead]) is None
    assert LearningRate().explain(history, HEALTHY, [dead, alert("update_ratio")]) is not None


def test_calm_steps_explain_nothing() -> None:
    assert explain([0.01, 0.01]) is None
    assert explain([NAN, NAN]) is None
    assert explain([]) is None


def test_several_spikes_are_no_accident() -> None:
    assert explain([0.01], rule="spike") is None
    found = explain([0.01], rule="spike", times=2)
    assert found is not None
    assert (found.confidence, found.evidence[0].partition(":")[0]) == (0.6, "the gradient spiked 2 times")


@pytest.mark.parametrize(
    ("rule", "ending"), [("exploding", "3 times"), ("dead", "throw training off, and it recovers")]
)
def test_spikes_of_a_run_that_diverges_are_none_it_recovers_from(rule: str, ending: str) -> None:
    alerts = [*(alert("spike", step=step) for step in range(3)), alert(rule)]
    found = LearningRate().explain(begun(HEALTHY, [0.01]), HEALTHY, alerts)
    assert found is not None
    assert found.evidence[0].endswith(ending)


def test_an_unstable_run_needs_no_large_first_step() -> None:
    found = explain([0.01], rule="unstable")
    assert found is not None
    assert (found.confidence, found.remedy) == (0.6, "divide the learning rate by 10")
    assert found.evidence == ("by step 0 the gradient had leapt again and again, and had not come down",)


def test_steps_by_which_nothing_was_learned() -> None:
    alerts, history = [alert("update_ratio", step=101, value=0.6)], begun(HEALTHY, [0.01] * 110)
    assert LearningRate().explain(history, HEALTHY, alerts) is None  # for all that is known
    history.progress.look(stats(101, layers([1.0]), output_error=0.9), count=102)
    found = LearningRate().explain(history, HEALTHY, alerts)
    assert found is not None
    assert (found.confidence, found.remedy) == (0.6, "divide the learning rate by 10")
    assert found.evidence == (
        "by step 101 hardly anything was learned, and steps were 0.6 of the weights' size, where 0.5 is the limit",
    )
    assert LearningRate().explain(history, HEALTHY, [replace(alerts[0], value=1e-9)]) is None


def test_gradient_descent_beyond_the_curvature() -> None:
    """On a parabola of curvature 8 and at a rate of 0.3, a step multiplies the gradient by 1 - 2.4."""
    x, norms = 1.0, []
    for _ in range(12):
        norms.append(abs(8.0 * x))
        x -= 0.3 * 8.0 * x
    history = History()
    for step, norm in enumerate(norms):
        history.append(stats(step, layers([norm]), total_update=0.5))
    assert steady_growth(history) == pytest.approx(1.4)
    found = LearningRate().explain(history, HEALTHY, [alert("update_ratio")])
    assert found is not None
    assert found.remedy == "divide the learning rate by 2.4"  # to 1 / curvature
    assert "1.4-fold at every step: the learning rate is 2.4 times the inverse" in found.evidence[-1]


def test_what_grows_unsteadily_tells_no_curvature() -> None:
    history = History.from_grad_norms(fc=[1.0, 2.0, 9.0] * STEADY)
    assert math.isnan(steady_growth(history))
    assert math.isnan(steady_growth(History()))


def test_a_schedule_that_begins_too_high() -> None:
    """Three steps at 3,000 times the rate: the gradients stay alike, the steps fall at once."""
    updates = [16.0, 12.0, 9.0, *[1e-3] * 9]
    found = explain(updates)
    assert found is not None
    assert found.remedy == "divide the learning rate of the first 3 steps by 1.6e+03"
    assert steps_of_shock(begun(HEALTHY, [1.0, 0.5, 0.3, 0.2, 0.1, 0.09, 0.08, 0.07])) == 0
    assert steps_of_shock(History()) == 0


def test_steps_that_fall_with_the_gradient_are_no_schedule() -> None:
    history = History()
    for step, (norm, update) in enumerate(zip([1e4, 1e4, 1.0, 1.0, *[1.0] * 8], [NAN, 5.0, 5.0, 1e-3, *[1e-3] * 8])):
        history.append(stats(step, layers([norm]), total_update=update))
    assert steps_of_shock(history) == 0


@pytest.mark.parametrize("other", ["inputs", "weights", "time"])
def test_another_explanation_of_large_steps(other: str) -> None:
    profile = PROFILES["large"] if other == "weights" else HEALTHY
    if other == "time":
        profile = replace(profile, time_steps=(TimeSteps("rnn", np.full(9, 2.0), np.ones(10)),))
    known = {"data_rms": np.array([1e4, *[NAN] * 6])} if other == "inputs" else {}
    found = LearningRate().explain(begun(profile, [1.0], **known), profile, [alert("exploding")])
    assert found is not None
    assert (found.confidence, found.evidence[-1][:4]) == (0.3, "but ")


def test_without_a_probed_step() -> None:
    found = explain([1.0], profile=None)
    assert found is not None
    assert (found.confidence, "a probed step" in found.evidence[-1]) == (0.6, True)


@pytest.mark.parametrize(
    ("argument", "value"), [("healthy_update", 0.0), ("max_update", 1e-3), ("throws", 0.01), ("throws", NAN)]
)
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"LearningRate: {argument} must be"):
        LearningRate(**{argument: value})
