"""SpikeClip: spikes of any size and number, and what is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping.spike_clip import SpikeClip
from tests.clipping.norms import clip, limits, noisy, run
from tests.tensors import INF


def reference(before, factor=3.0, z=4.0, window=100, warmup=20):
    """The equation, from the norms before."""
    last = np.array(before[-window:])
    if len(last) < warmup:
        return INF
    spread = 1.4826 * np.median(np.abs(np.log(last / np.median(last))))
    return np.median(last) * max(factor, np.exp(z * spread))


@settings(max_examples=40, deadline=None)
@given(
    factor=st.floats(1, 10),
    z=st.floats(0, 6),
    warmup=st.integers(1, 20),
    more=st.integers(0, 40),
    spread=st.floats(0, 1.5),
    seed=st.integers(0, 2**31),
)
def test_is_its_equation_step_by_step(factor, z, warmup, more, spread, seed):
    norms = noisy(80, spread, seed=seed)
    window = warmup + more
    expected = [reference(norms[:i], factor, z, window, warmup) for i in range(len(norms))]
    np.testing.assert_allclose(limits(SpikeClip(factor, z, window, warmup), norms), expected, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(spike=st.floats(10, 1e30), at=st.integers(0, 99), seed=st.integers(0, 2**31))
def test_the_size_of_a_spike_changes_nothing_after_it(spike, at, seed):
    norms = noisy(150, 0.1, seed=seed)
    seen = [limits(SpikeClip(), [*norms[:at], size, *norms[at + 1 :]])[at + 1 :] for size in (10.0, spike)]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_spikes_are_limited_however_many_while_they_are_fewer_than_the_others(share):
    """The spread of the norms grows with them, and the limit with it."""
    norms = noisy(300, 0.02)
    every = np.flatnonzero(np.diff(np.floor(np.arange(301) * share)))
    for i in every:
        norms[i] = 1e6
    after = np.array([float(record.norm_after) for record in run(SpikeClip(), norms)])
    assert after[every[every >= 25]].max() < 3.3


@pytest.mark.parametrize("shift", [4.0, 1e6, 1e-6])
@pytest.mark.parametrize("window", [20, 50, 51, 100])
def test_a_level_shift_is_followed_after_half_the_window(shift, window):
    records = run(SpikeClip(window=window), [1.0] * 100 + [shift] * 100)
    new = [float(record.threshold) >= shift for record in records[100:]]
    followed = window // 2 + 1
    assert all(new[followed:])
    assert float(records[100 + followed].threshold) == pytest.approx(3.0 * shift)
    assert float(records[100].threshold) == pytest.approx(3.0)


def test_alternating_norms_are_their_own_normal():
    assert not any(float(record.clipped) for record in run(SpikeClip(), [1.0, 1000.0] * 100)[100:])


def test_healthy_norms_pass():
    for seed in range(5):
        clipped = [float(record.clipped) for record in run(SpikeClip(), noisy(1000, 0.3, seed=seed))]
        assert np.mean(clipped) <= 0.002


def test_nothing_is_clipped_in_the_warm_up():
    norms = [1.0, 1e6, 1.0, 1e-6] * 5
    assert limits(SpikeClip(), norms) == [INF] * 20


def test_a_spike_in_the_warm_up_does_not_blind_it():
    assert clip_after([1.0] * 10 + [1e6] + [1.0] * 9, 10.0) == pytest.approx(3.0, rel=1e-6)


def clip_after(norms, norm):
    policy = SpikeClip()
    run(policy, norms)
    return clip(policy, norm)[1]


def test_the_record_by_hand():
    record = run(SpikeClip(factor=5.0), [2.0] * 20 + [40.0])[-1]
    assert record.policy == "spike_clip"
    assert [float(v) for v in (record.norm_before, record.threshold, record.clipped)] == [40.0, 10.0, 1.0]
    assert float(record.coefficient) == pytest.approx(0.25, rel=1e-6)
    assert float(record.norm_after) == pytest.approx(10.0, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"factor": 0.5}, "SpikeClip: factor must be at least 1, got 0.5"),
        ({"z": -1}, "SpikeClip: z must be at least 0, got -1"),
        ({"warmup": 0}, "SpikeClip: warmup must be a whole number from 1, got 0"),
        ({"window": 19}, "SpikeClip: window must be a whole number from 20, got 19"),
    ],
)
def test_refuses_what_is_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        SpikeClip(**given)
