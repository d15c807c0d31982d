"""Vanishing and exploding through time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import ExplodingInTime, LearningRate, VanishingInTime
from gradwatch.diagnosis.through_time import may_explode
from gradwatch.profile import BackwardProfile, TimeSteps, Weight
from tests.diagnosis.profiles import NAN, NOTHING, PROFILES, alert


def profile_of(gain: float, gates: int = 1, steps: int = 30, path: str = "hidden") -> BackwardProfile:
    times = TimeSteps("rnn", np.full(steps - 1, gain), np.ones(steps), path)
    states = Weight("rnn.weight_hh_l0", 3.0, 32, 32 * gates, 32 * gates)
    return BackwardProfile(time_steps=(times,), weights=(Weight("rnn.weight_ih_l0", 1.0, 8, 32, 32), states))


class TestVanishing:
    def explain(self, profile: BackwardProfile | None, value: float = 1e-9) -> Diagnosis | None:
        return VanishingInTime().explain(History(), profile, [alert("vanishing_in_time", "rnn", value=value)])

    def test_small_recurrent_weights(self) -> None:
        found = self.explain(profile_of(0.25))
        assert found is not None
        assert (found.cause, found.change, found.layers, found.confidence) == (
            "vanishing_in_time",
            "init_scale",
            ("rnn",),
            0.9,
        )
        assert found.evidence == (
            "each of 30 time steps of rnn passes 0.25 of the squared gradient on: over all of them it shrinks "
            f"{2**29:.2g}-fold",
        )
        assert found.remedy.startswith("multiply the recurrent weights of rnn by 2: orthogonal ones of radius 1")

    @pytest.mark.parametrize(("gates", "gate"), [(3, "update"), (4, "forget")])
    def test_gates_that_are_closed(self, gates: int, gate: str) -> None:
        found = self.explain(profile_of(0.25, gates))
        assert found is not None
        assert found.remedy == (
            f"start the bias of the {gate} gate of rnn at log(T) for T time steps, {math.log(30):.2g} here, so that it "
            "stays open"
        )

    def test_of_two_ways_the_one_that_keeps_more_counts(self) -> None:
        hidden, cell = profile_of(1e-6, 4), profile_of(0.5, 4, path="cell")
        found = self.explain(BackwardProfile(time_steps=hidden.time_steps + cell.time_steps))
        assert found is not None
        assert "passes 0.5 of the squared gradient" in found.evidence[0]

    @pytest.mark.parametrize("profile", [None, NOTHING, PROFILES["time steps of NaN"], PROFILES["one time step"]])
    def test_where_time_steps_could_not_be_seen(self, profile: BackwardProfile | None) -> None:
        found = self.explain(profile)
        assert found is not None
        assert found.confidence == 0.6
        assert (
            found.evidence[0] == "the first quarter of the time steps gets 1e-09 of the largest gradient at any of them"
        )
        assert found.remedy.startswith(
            "start the recurrent weights of rnn orthogonal, of ReLU as the identity; of an LSTM"
        )

    def test_other_symptoms(self) -> None:
        assert VanishingInTime().explain(History(), profile_of(0.25), [alert("vanishing", "rnn")]) is None


class TestExploding:
    def explain(self, profile: BackwardProfile | None, rule: str = "exploding") -> Diagnosis | None:
        history = History.from_grad_norms(rnn=[0.5] * 30 + [500.0])
        return ExplodingInTime().explain(history, profile, [alert(rule, "rnn", step=30, value=500.0)])

    @pytest.mark.parametrize("rule", ["exploding", "update_ratio", "spike", "nonfinite"])
    def test_it_is_clipped_at_a_multiple_of_the_median(self, rule: str) -> None:
        found = self.explain(profile_of(1.5, steps=20), rule)
        assert found is not None
        assert (found.cause, found.change, found.layers) == ("exploding_in_time", "clipping", ("rnn",))
        assert found.evidence == (
            "the total gradient norm reached 500, its median is 0.5",
            "each of 20 time steps of rnn passes 1.5 of the squared gradient on: over all of them it grows "
            f"{1.5**9.5:.2g}-fold",
        )
        assert found.remedy == "clip at 1.5: 3 times this run's median norm"

    @pytest.mark.parametrize(
        ("gain", "remedy"),
        [
            (4.0, "multiply the recurrent weights of rnn by 0.5; and clip at 1 as well, which bounds each step"),
            (NAN, "start the recurrent weights of rnn orthogonal; and clip at 1 as well, which bounds each step"),
            (math.inf, "start the recurrent weights of rnn orthogonal; and clip at 1 as well, which bounds each step"),
        ],
    )
    @pytest.mark.parametrize("then", [NAN, 1e21])
    def test_before_any_step_it_was_beyond_measure(self, gain: float, remedy: str, then: float) -> None:
        history = History.from_grad_norms(rnn=[7e21, then])
        found = ExplodingInTime().explain(history, profile_of(gain), [alert("exploding", "rnn")])
        assert found is not None
        assert (found.change, found.remedy) == ("init_scale", remedy)
        assert found.evidence[-1] == "it was 7e+21 at the first step, before any had moved the weights"

    def test_a_layer_that_forgets_did_not_begin_it(self) -> None:
        history = History.from_grad_norms(rnn=[7e21, 1e21])
        found = ExplodingInTime().explain(history, profile_of(0.5), [alert("exploding", "rnn")])
        assert found is not None
        assert found.change == "clipping"

    @pytest.mark.parametrize("gain", [NAN, 0.0])
    def test_what_the_time_steps_pass_may_be_lost_by_then(self, gain: float) -> None:
        found = self.explain(profile_of(gain))
        assert found is not None
        assert found.evidence[-1] == "rnn is recurrent: its weights count once for each of its time steps"

    @pytest.mark.parametrize(("began", "is_one"), [(0.5, False), (80.0, True)])
    def test_a_layer_that_shrinks_the_gradient_needs_to_have_begun_large(self, began: float, is_one: bool) -> None:
        """Else it is the learning rate, as in any network."""
        history = History.from_grad_norms(rnn=[began, 1e4])
        found = ExplodingInTime().explain(history, profile_of(0.5), [alert("exploding", "rnn")])
        assert (found is not None) == is_one
        history.append(replace(history.now, step=2, total_update=1.0))
        rate = LearningRate().explain(history, profile_of(0.5), [alert("exploding", "rnn")])
        assert rate is not None
        assert (
            "but the layer is recurrent, where single steps explode at any learning rate" in rate.evidence
        ) == is_one

    def test_a_layer_that_is_shared_by_a_few_is_not_recurrent(self) -> None:
        assert self.explain(profile_of(1.5, steps=7)) is None
        assert self.explain(profile_of(1.5, steps=8)) is not None

    def test_other_networks_and_symptoms(self) -> None:
        assert self.explain(PROFILES["large"]) is None
        assert self.explain(None) is None
        assert self.explain(profile_of(1.5), "vanishing") is None

    def test_the_factor_is_above_one(self) -> None:
        with pytest.raises(ValueError, match="ExplodingInTime: factor must be above 1"):
            ExplodingInTime(factor=1.0)


def test_a_first_step_of_a_small_gradient_that_throws_the_weights_off_is_the_learning_rates() -> None:
    grows = [TimeSteps("rnn", np.full(29, 1.1), np.ones(30))]
    for norm, moved, expected in ((0.9, 0.4, False), (0.9, 0.2, True), (1.1, 0.4, True)):
        history, first = History(), History.from_grad_norms(rnn=[norm]).latest
        assert first is not None
        history.append(first)
        history.append(replace(first, step=1, total_update=moved))
        assert may_explode(history, grows) is expected
