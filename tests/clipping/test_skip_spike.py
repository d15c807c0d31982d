"""SkipSpike: a spike is passed over, and never more than so many steps in a row."""

import statistics as python_statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping.skip_spike import SkipSpike
from gradwatch.clipping.spike_clip import SpikeClip
from gradwatch.stats import Measured, measure
from tests.clipping.norms import HOSTILE, limits, noisy, run
from tests.tensors import INF, NAN


def skipped(policy, norms):
    return [record.coefficient == 0.0 for record in run(policy, norms)]


def longest(flags):
    """The longest run of True."""
    return max((len(run) for run in "".join("x" if flag else " " for flag in flags).split()), default=0)


def by_standard_deviations(norms, window=128, sigmas=6.0):
    """Whether a step is skipped by a z-score from the plain mean and deviation of the norms before, NaN included."""
    flags = []
    for i, norm in enumerate(norms):
        before = norms[max(0, i - window) : i]
        if len(before) < 64:
            flags.append(False)
            continue
        mean = sum(before) / len(before)
        deviation = python_statistics.stdev(before) if mean == mean else NAN
        flags.append(not abs(norm - mean) <= sigmas * deviation)
    return flags


def test_skips_the_spike_alone():
    norms = noisy(200, 0.1)
    norms[150] = 50.0
    assert [i for i, flag in enumerate(skipped(SkipSpike(), norms)) if flag] == [150]


def test_its_limit_is_that_of_spike_clip():
    norms = noisy(200, 0.5) + [100.0, NAN, 0.0]
    assert limits(SkipSpike(), norms) == limits(SpikeClip(), norms)


@settings(max_examples=100, deadline=None)
@given(
    norms=st.lists(st.one_of(st.floats(1e-30, 1e30), st.sampled_from([0.0, NAN, INF, 1.0])), max_size=80),
    max_consecutive=st.integers(1, 6),
)
def test_never_skips_more_in_a_row(norms, max_consecutive):
    flags = skipped(SkipSpike(window=10, warmup=3, max_consecutive=max_consecutive), norms)
    assert longest(flags) <= max_consecutive


@pytest.mark.parametrize("name", HOSTILE)
def test_never_skips_more_in_a_row_whatever_the_history(name):
    assert longest(skipped(SkipSpike(), noisy(100) + HOSTILE[name] + noisy(100))) <= 5


def test_one_nan_costs_no_further_step():
    """By mean and standard deviation one NaN costs the 128 steps after it as well."""
    norms = noisy(400, 0.1)
    norms[150] = NAN
    assert sum(by_standard_deviations(norms)) == longest(by_standard_deviations(norms)) == 129
    assert not any(skipped(SkipSpike(), norms))


def test_a_new_level_is_let_through():
    flags = skipped(SkipSpike(), noisy(100, 0.1) + noisy(300, 0.1, level=100.0))
    assert flags == [False] * 100 + [True] * 5 + [False] * 295


def test_after_a_normal_step_it_skips_again():
    norms = [1.0] * 30 + ([50.0] * 7 + [1.0]) * 2
    assert skipped(SkipSpike(max_consecutive=3), norms)[30:] == ([True] * 3 + [False] * 5) * 2


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_step_that_is_not_finite_is_not_its_business(value):
    norms = [1.0] * 30 + [50.0, value] * 4
    policy = SkipSpike(max_consecutive=2)
    assert skipped(policy, norms)[30:] == [True, False, True, False, False, False, False, False]


def test_takes_the_gradients_away():
    policy = SkipSpike()
    run(policy, [1.0] * 30)
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    gradients = [torch.tensor([30.0, 40.0]), torch.tensor([0.5])]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient
    measured = measure(gradients)
    record = policy.clip_(gradients, Measured(measured.norms, measured.total_norm, parameters=parameters))
    assert [p.grad for p in parameters] == [None, None]
    assert (record.policy, record.norm_after, record.coefficient, record.clipped) == ("skip_spike", 0, 0, 1)
    assert record.threshold == pytest.approx(3.0)


def test_refuses_what_is_out_of_range():
    with pytest.raises(ValueError, match=r"SkipSpike: max_consecutive must be a whole number from 1, got 0"):
        SkipSpike(max_consecutive=0)
    with pytest.raises(ValueError, match=r"SkipSpike: factor must be at least 1, got 0"):
        SkipSpike(factor=0)
