"""ZClip against the equations of its paper."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping.zclip import ZClip
from tests.clipping.norms import clip, limits, noisy, run
from tests.tensors import INF, NAN

EVER = 10**9


def published(norms, alpha=0.97, z=2.5, warmup=25, epsilon=lambda mean: 0.0):
    """The norm after clipping at each step, by algorithm 1."""
    after, mean, variance = [], NAN, NAN
    for step, norm in enumerate(norms):
        if step < warmup:
            after.append(norm)
            if step == warmup - 1:
                mean = math.fsum(after) / warmup
                variance = math.fsum((n - mean) ** 2 for n in after) / warmup
            continue
        std = math.sqrt(variance) + epsilon(mean)
        score = (norm - mean) / std
        after.append(mean + z**2 / score * std if score > z else norm)
        mean = alpha * mean + (1 - alpha) * after[-1]
        variance = alpha * variance + (1 - alpha) * (after[-1] - mean) ** 2
    return after


def spiked(norms, every, factor):
    return [norm * factor if i % every == every - 1 else norm for i, norm in enumerate(norms)]


def norms_after(policy, norms):
    return [clip(policy, norm)[1] for norm in norms]


@settings(max_examples=80, deadline=None)
@given(
    alpha=st.floats(0.5, 0.99),
    z=st.floats(1, 4),
    warmup=st.integers(2, 30),
    spread=st.floats(0.05, 1),
    every=st.integers(3, 40),
    factor=st.floats(1, 1000),
    seed=st.integers(0, 2**31),
)
def test_is_as_published_step_by_step(alpha, z, warmup, spread, every, factor, seed):
    norms = spiked(noisy(120, spread, seed=seed), every, factor)
    expected = published(norms, alpha, z, warmup, epsilon=lambda mean: 1e-6 * mean)
    ours = norms_after(ZClip(alpha, z, warmup, max_consecutive=EVER), norms)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_epsilon_does_not_show(seed):
    norms = spiked(noisy(500, 0.2, seed=seed), every=17, factor=30.0)
    np.testing.assert_allclose(norms_after(ZClip(max_consecutive=EVER), norms), published(norms), rtol=1e-5)


def test_the_further_beyond_the_less_is_left():
    norms = noisy(100, 0.1)
    left = [norms_after(ZClip(), [*norms, spike])[-1] for spike in (1.5, 2.0, 4.0, 100.0, 1e6)]
    assert sorted(left, reverse=True) == left
    assert 1.0 < left[-1] < left[0] < 1.5


def test_by_hand():
    """Mean 2 and standard deviation 1: a norm of 12 has z = 10, and is left 2 + 2.5**2 / 10."""
    record = run(ZClip(warmup=4, alpha=0.9), [1.0, 3.0, 1.0, 3.0, 12.0])[-1]
    assert (record.policy, float(record.norm_before)) == ("zclip", 12.0)
    assert float(record.threshold) == pytest.approx(2.625, rel=1e-5)
    assert float(record.norm_after) == pytest.approx(2.625, rel=1e-5)
    assert float(record.coefficient) == pytest.approx(2.625 / 12, rel=1e-5)


def test_the_moments_by_hand():
    policy = ZClip(warmup=2, alpha=0.75)
    run(policy, [1.0, 3.0])
    assert policy.state_dict() == {"count": 2.0, "mean": 2.0, "std": 1.0, "beyond": 0.0}
    run(policy, [4.0])  # within 2.5 standard deviations: mean 2.5, variance 0.75 + 0.25 * 1.5**2
    assert policy.state_dict() == {"count": 3.0, "mean": 2.5, "std": pytest.approx(1.3125**0.5), "beyond": 0.0}


def test_below_the_limit_it_is_where_clipping_begins():
    norms = [*noisy(50, 0.1), 1.0]
    policy = ZClip()
    limit = limits(policy, norms)[-1]
    state = ZClip()
    run(state, norms[:-1])
    moments = state.state_dict()
    assert limit == pytest.approx(moments["mean"] + 2.5 * moments["std"], rel=1e-5)


@pytest.mark.parametrize("at", [3, 40])
@pytest.mark.parametrize("value", [NAN, INF])
def test_one_step_that_is_not_finite_does_not_blind_it(value, at):
    """Published, no spike is clipped after it (but for one inf after the warm-up)."""
    norms = noisy(200, 0.1)
    norms[at] = value
    norms[190] = 1000.0
    if at == 3 or math.isnan(value):
        assert published(norms)[190] == 1000.0
    assert norms_after(ZClip(), norms)[190] < 1.3


def test_how_long_a_spike_in_the_warm_up_blinds():
    norms = noisy(25, 0.1) + noisy(400, 0.1, seed=1)
    norms[10] *= 1000.0
    blind = [norms_after(ZClip(), [*norms[:steps], 10.0])[-1] == 10.0 for steps in (225, 325)]
    assert blind == [True, False]


@pytest.mark.parametrize("shift", [2.0, 10.0, 1000.0])
def test_a_level_shift_is_followed(shift):
    """Published, a level that doubles is clipped to the old one for ever: here, all of 2,000 steps."""
    norms = noisy(100, 0.1) + noisy(2000, 0.1, level=shift, seed=1)
    assert max(published(norms)[100:]) < 1.5
    clipped = np.array([float(record.clipped) for record in run(ZClip(), norms)])[100:]
    assert clipped[:25].all()
    assert clipped[50:].mean() < 0.05


def test_a_level_that_falls_is_followed():
    norms = noisy(100, 0.1) + noisy(400, 0.1, level=1e-3)
    ours = norms_after(ZClip(), [*norms, 1.0])
    assert ours[-1] < 2e-3


def test_zeros_do_not_end_training():
    """Published, the mean and deviation of zeros make the limit zero."""
    norms = [0.0] * 40 + [1.0] * 40
    assert norms_after(ZClip(), norms)[40:] == pytest.approx([1.0] * 40)


def test_constant_norms_pass():
    records = run(ZClip(), [0.1] * 200)
    assert not any(float(record.clipped) for record in records)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("alpha", 1.5, "at least 0 and at most 1"),
        ("z", 0, "above 0"),
        ("warmup", 0, "a whole number from 1"),
        ("max_consecutive", -1, "a whole number from 0"),
        ("max_consecutive", 1.5, "a whole number from 0"),
    ],
)
def test_refuses_what_is_out_of_range(name, value, allowed):
    with pytest.raises(ValueError, match=rf"ZClip: {name} must be {allowed}, got {value}"):
        ZClip(**{name: value})
