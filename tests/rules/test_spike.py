from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, History, Severity
from gradwatch.history import MAD_TO_STD
from gradwatch.rules import Spike
from gradwatch.rules.baseline import NOISE
from gradwatch.rules.spike import BEYOND
from tests.histories import NAN, each, history_of, layers

RULE = Spike()
FACTOR = float(RULE.factor)  # type: ignore[arg-type]
READY = RULE.warmup + 10
"""Steps after which there is a baseline."""


def check(column: list[float | None], rule: Spike | None = None) -> list[Alert]:
    return (rule or Spike()).check(History.from_grad_norms(fc=column))


def test_one_spike_is_one_alert_without_a_recovery() -> None:
    (alert,) = check([2.0] * READY + [3 * FACTOR] + [2.0] * 50)
    assert (alert.step, alert.layer, alert.severity) == (READY, "fc", Severity.WARNING)
    assert alert.value == 3 * FACTOR
    assert alert.threshold == pytest.approx(2 * FACTOR)
    assert alert.message == f"fc: gradient norm {3 * FACTOR:.3g} in one step, normal is up to {2 * FACTOR:.3g}"


def test_a_rise_below_the_factor_is_no_spike() -> None:
    assert check([1.0] * READY + [0.9 * FACTOR] + [1.0] * 20) == []


@pytest.mark.parametrize(("times", "told"), [(0.9 * BEYOND, False), (1.1 * BEYOND, True)])
def test_what_was_normal_before_must_be_exceeded_by_far(times: float, told: bool) -> None:
    """As of a layer that has calmed down a hundredfold, whose largest median norm was 100."""
    column = [100.0] * READY + [1.0] * 300 + [times * NOISE * 100.0] + [1.0] * 20
    assert bool(check(column)) is told


def test_every_spike_is_told() -> None:
    column = [1.0] * READY + ([2 * FACTOR] + [1.0] * 9) * 5
    assert [a.step for a in check(column)] == [READY + 10 * i for i in range(5)]


def test_a_lasting_rise_is_no_spike() -> None:
    rng = np.random.default_rng(0)
    for rise in (2 * FACTOR, 50 * FACTOR):
        noisy = rng.lognormal(0.0, 0.3, 300)
        assert check([1.0] * READY + [rise] * 200) == []
        assert check([*noisy[:100], *(rise * noisy[100:])]) == []


def test_growth_step_by_step_is_no_spike() -> None:
    assert check([1.0] * READY + [1.5**i for i in range(20)] + [1.5**20] * 50) == []


def test_a_spike_may_last_a_few_steps_and_is_named_by_its_peak() -> None:
    for steps in range(1, RULE.max_steps + 1):
        burst = [3 * FACTOR] * (steps - 1) + [4 * FACTOR]
        (alert,) = check([1.0] * READY + burst + [1.0] * 20)
        assert (alert.step, alert.value) == (READY + steps - 1, 4 * FACTOR)
    assert check([1.0] * READY + [3 * FACTOR] * (RULE.max_steps + 1) + [1.0] * 20) == []


def test_a_noisy_layer_needs_a_higher_jump() -> None:
    # The median of these logs is 0, and most of them are log 10 away from it.
    noise = [0.1, 1.0, 10.0] * READY
    limit = math.exp(RULE.z * MAD_TO_STD * math.log(10.0))
    assert limit > FACTOR
    assert check([*noise, 0.9 * limit, *noise]) == []
    (alert,) = check([*noise, 1.1 * limit, *noise])
    assert alert.threshold == pytest.approx(limit)


def test_a_return_to_where_training_came_from_is_no_spike() -> None:
    rng = np.random.default_rng(0)
    start, low = rng.lognormal(0.0, 0.3, 60), 1e-6 * rng.lognormal(0.0, 0.3, 200)
    assert start.max() < NOISE
    assert check([*start, *low, *start]) == []


def test_there_is_no_spike_before_the_warmup() -> None:
    assert check([1.0] * (RULE.warmup - 1) + [1e6] + [1.0]) == []


def test_what_is_not_finite_is_left_to_nonfinite() -> None:
    assert check([1.0] * READY + [NAN, math.inf] + [1.0] * 20) == []


def test_the_layers_of_one_step_make_one_alert_about_the_worst() -> None:
    high = [3 * FACTOR, 1.0, 9 * FACTOR, 2 * FACTOR]
    (alert,) = Spike().check(history_of([layers([1.0] * 4)] * READY + [layers(high)] + [layers([1.0] * 4)] * 5))
    assert alert.layer is None
    assert alert.value == 9 * FACTOR
    assert alert.message.startswith("fc2, fc3, fc0: ")


def test_a_factor_for_each_pattern() -> None:
    rule = Spike(factor={"head": 1e6})
    column = [1.0] * READY + [2 * FACTOR] + [1.0] * 5
    assert [a.layer for a in rule.check(History.from_grad_norms(body=column, head=column))] == ["body"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"factor": 1}, ValueError, "Spike: factor must be above 1, got 1"),
        ({"factor": {"a": True}}, TypeError, r"Spike: factor\['a'\] must be a number, got True"),
        ({"z": 0}, ValueError, "Spike: z must be above 0, got 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        Spike(**arguments)


@pytest.mark.parametrize(("whole", "told"), [(4_000.0, True), (6_000.0, False)])
def test_a_layer_with_a_hundredth_of_the_gradient_throws_nothing_off(whole: float, told: bool) -> None:
    history = History.from_grad_norms(fc=[1.0] * 30 + [50.0] + [1.0] * 5, out=[whole] * 36)
    assert [a.layer for a in each(Spike().check(history))] == ["fc"] * told
