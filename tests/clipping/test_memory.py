"""What every policy with a memory owes its user, whatever the norms before."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping import autoclip, statistics, zclip
from gradwatch.clipping.autoclip import AutoClip
from gradwatch.clipping.skip_nonfinite import SkipNonFinite
from gradwatch.clipping.skip_spike import SkipSpike
from gradwatch.clipping.spike_clip import SpikeClip
from gradwatch.clipping.zclip import ZClip
from gradwatch.protocols import ClipPolicy
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured, measure
from tests.clipping.norms import HOSTILE, clip, counting, limits, noisy, run
from tests.tensors import INF, NAN

LIMITING = {
    "autoclip": lambda: AutoClip(percentile=90, window=60),
    "zclip": lambda: ZClip(alpha=0.8, warmup=10, max_consecutive=8),
    "spike_clip": lambda: SpikeClip(window=60, warmup=10),
}
KNOWING = LIMITING | {"skip_spike": lambda: SkipSpike(window=60, warmup=10)}
ALL = KNOWING | {"skip_non_finite": lambda: SkipNonFinite(max_consecutive=1000)}

limiting = pytest.mark.parametrize("name", LIMITING)
knowing = pytest.mark.parametrize("name", KNOWING)
every_policy = pytest.mark.parametrize("name", ALL)

NORMS = st.one_of(st.floats(1e-3, 1e3), st.sampled_from([0.0, NAN, INF, 1e-30, 1e30, 1.0, 1.0, 1.0]))
HISTORIES = st.lists(NORMS, max_size=80)


def state_after(name, history):
    policy = ALL[name]()
    run(policy, history)
    return policy.state_dict()


def numbers(record: ClipRecord) -> list[float]:
    return [float(v) for v in (record.norm_before, record.norm_after, record.coefficient, record.threshold)]


@every_policy
def test_is_a_policy_with_a_state(name):
    policy = ALL[name]()
    assert isinstance(policy, ClipPolicy)
    for value in policy.state_dict().values():
        assert type(value) in (int, float) or (isinstance(value, np.ndarray) and value.dtype == np.float64)


@every_policy
@pytest.mark.parametrize("history", HOSTILE)
def test_takes_hostile_histories(name, history):
    policy = ALL[name]()
    for norm in HOSTILE[history]:
        record, after = clip(policy, norm)
        assert record.policy == name
        np.testing.assert_array_equal(float(record.norm_before), norm)
        assert record.threshold > 0
        if math.isfinite(norm):
            assert after == pytest.approx(float(record.norm_after), rel=1e-12)
            assert after <= norm
            assert float(record.clipped) == (after < norm)
    # Whatever it was: once the norms are normal for long enough, they pass.
    assert run(policy, [1.0] * 150)[-1].norm_after == pytest.approx(1.0)


@knowing
def test_a_spike_is_found_after_every_hostile_history(name):
    for history in HOSTILE.values():
        policy = KNOWING[name]()
        run(policy, history + noisy(800 if name == "zclip" else 100, 0.1))
        _, after = clip(policy, 1000.0)
        assert after < 4.0


@knowing
@settings(max_examples=60, deadline=None)
@given(history=HISTORIES)
def test_what_is_not_finite_or_zero_does_not_count(name, history):
    """The other steps are judged as if it had not been."""
    among = [x for x, norm in zip(limits(KNOWING[name](), history), history) if counting([norm])]
    assert among == limits(KNOWING[name](), counting(history))


@knowing
@settings(max_examples=40, deadline=None)
@given(history=st.lists(st.floats(1e-3, 1e3), max_size=60), exponent=st.integers(-90, 90))
def test_the_scale_of_the_gradients_does_not_matter(name, history, exponent):
    scaled = limits(KNOWING[name](), [2.0**exponent * norm for norm in history])
    expected = [2.0**exponent * limit for limit in limits(KNOWING[name](), history)]
    np.testing.assert_allclose(scaled, expected, rtol=1e-12)


@limiting
@settings(max_examples=60, deadline=None)
@given(history=HISTORIES)
def test_the_norm_is_at_most_the_limit_and_untouched_below(name, history):
    policy = LIMITING[name]()
    for norm in history:
        record, after = clip(policy, norm)
        limit = float(record.threshold)
        if norm <= limit * (1 - 1e-9):
            assert after == norm
        elif math.isfinite(norm):
            assert after == pytest.approx(limit, rel=1e-9)
        else:
            np.testing.assert_array_equal(after, norm)


@limiting
@pytest.mark.parametrize("level", [1e-30, 1e-9, 1e-4, 1e30])
def test_normal_norms_pass_at_any_scale(name, level):
    """The 1e-6 in the formula of torch's clip_grad_norm_ would make most of a small gradient vanish."""
    policy = LIMITING[name]()
    run(policy, [level] * 30)
    record, after = clip(policy, level)
    assert after == level
    assert (record.coefficient, record.clipped) == (1.0, 0.0)


@limiting
def test_the_direction_is_kept_over_all_gradients_and_dtypes(name):
    policy = LIMITING[name]()
    run(policy, noisy(100, 0.1))
    gradients = [torch.tensor([300.0, -400.0]), torch.tensor([[0.0, 12.0]], dtype=torch.float64), torch.zeros(0)]
    before = [g.clone() for g in gradients]
    record = policy.clip_(gradients, measure(gradients))
    factor = float(record.threshold) / math.hypot(300, 400, 12)
    assert factor < 0.01
    for old, new in zip(before, gradients):
        torch.testing.assert_close(new, old * factor, rtol=1e-6, atol=0)


@every_policy
@settings(max_examples=40, deadline=None)
@given(history=HISTORIES, data=st.data())
def test_resumed_is_as_uninterrupted_bit_for_bit(name, history, data):
    cut = data.draw(st.integers(0, len(history)))
    whole, before, resumed = ALL[name](), ALL[name](), ALL[name]()
    expected = [numbers(record) for record in run(whole, history)][cut:]
    run(before, history[:cut])
    state = before.state_dict()
    kept = copy.deepcopy(state)
    run(before, [5.0, 7.0])
    np.testing.assert_equal(state, kept)  # it is no view of what lives on
    resumed.load_state_dict(state)
    np.testing.assert_equal([numbers(record) for record in run(resumed, history[cut:])], expected)
    np.testing.assert_equal(resumed.state_dict(), whole.state_dict())


@knowing
@settings(max_examples=30, deadline=None)
@given(history=st.lists(st.one_of(st.floats(1e-3, 1e3), st.sampled_from([0.0, NAN, INF])), max_size=70))
def test_on_an_accelerator_the_limits_are_the_same(name, history):
    """There the numbers are tensors, with torch's functions."""
    expected = limits(KNOWING[name](), history)
    with pytest.MonkeyPatch.context() as patch:
        for module in (statistics, autoclip, zclip):
            patch.setattr(module, "number", lambda norm: norm.double())
        policy = KNOWING[name]()
        np.testing.assert_allclose(limits(policy, history), expected, rtol=1e-12)
        state = policy.state_dict()
    for key, value in state_after(name, history).items():
        np.testing.assert_allclose(state[key], value, rtol=1e-12)


@limiting
def test_elsewhere_than_on_the_cpu_nothing_waits(name):
    """A number of a meta tensor cannot be read."""
    policy = LIMITING[name]()
    policy.load_state_dict(state_after(name, noisy(30)))
    for _ in range(3):
        norms = torch.ones(2, device="meta")
        total = torch.linalg.vector_norm(norms)
        record = policy.clip_([torch.ones(3, device="meta")], Measured(norms, total))
        assert record.threshold.is_meta
        assert record.coefficient.is_meta


@pytest.mark.parametrize("name", sorted(KNOWING.keys() - {"zclip"}))
def test_a_longer_or_shorter_window_takes_over_what_it_can(name):
    state = state_after(name, [float(i) for i in range(1, 61)])
    for size in (20, 100):
        policy = type(KNOWING[name]())(window=size)
        policy.load_state_dict(state)
        kept = policy.state_dict()["norms"]
        assert len(kept) == size
        np.testing.assert_array_equal(kept[-20:], np.arange(41.0, 61.0))
