"""Chain: each policy gets what the one before it left."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping import AutoClip, Chain, GlobalNorm, PerLayer, SkipNonFinite, SkipSpike, Value, ZClip
from gradwatch.stats import Measured, measure
from tests.clipping.test_every_policy import copies, gradients_of
from tests.tensors import INF, NAN

PARTS = st.lists(
    st.one_of(
        st.builds(Value, st.floats(0.05, 5)),
        st.builds(GlobalNorm, st.floats(0.1, 5)),
        st.builds(PerLayer, st.floats(0.1, 5)),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(policies=PARTS, seed=st.integers(0, 2**31))
def test_is_one_policy_after_the_other(policies, seed):
    gradients = gradients_of([(3, 4), (4,), (2, 4)], torch.float64, 0, seed)
    alone = copies(gradients)
    records = []
    for policy in policies:
        records.append(policy.clip_(alone, measure(alone)))
    record = Chain(*policies).clip_(gradients, measure(gradients))
    for ours, theirs in zip(gradients, alone):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(record.parts, records, strict=True):
        assert float(ours.norm_before) == pytest.approx(float(theirs.norm_before), rel=1e-9)
        assert float(ours.clipped) == pytest.approx(float(theirs.clipped))
    assert float(record.norm_after) == pytest.approx(float(measure(gradients).total_norm), rel=1e-9)
    assert float(record.clipped) == max(float(part.clipped) for part in record.parts)


def test_the_record_by_hand():
    gradient = torch.tensor([3.0, 4.0])
    record = Chain(GlobalNorm(2.5), GlobalNorm(0.5)).clip_([gradient], measure([gradient]))
    assert gradient.tolist() == pytest.approx([0.3, 0.4], rel=1e-5)
    assert (record.policy, float(record.norm_before)) == ("chain", 5.0)
    assert [float(part.norm_before) for part in record.parts] == pytest.approx([5.0, 2.5], rel=1e-5)
    assert float(record.coefficient) == pytest.approx(0.1, rel=1e-5)
    assert float(record.norm_after) == pytest.approx(0.5, rel=1e-5)
    assert math.isnan(record.threshold)


def test_a_skipped_step_counts_for_nothing_in_those_behind():
    """They are not asked."""
    chain = Chain(SkipNonFinite(), AutoClip(50))
    for value in (1.0, NAN, 3.0):
        gradient = torch.tensor([value])
        record = chain.clip_([gradient], measure([gradient]))
    assert float(record.parts[1].threshold) == 2.0
    gradient = torch.tensor([INF, 1.0])
    record = chain.clip_([gradient], measure([gradient]))
    assert gradient.tolist() == [0.0, 0.0]
    assert (record.coefficient, record.norm_after, float(record.clipped)) == (0.0, 0.0, 1.0)
    assert [part.policy for part in record.parts] == ["skip_non_finite"]


def test_norms_are_measured_again_only_after_what_changed_them_one_by_one():
    gradient = torch.tensor([3.0, 4.0])
    wrong = Measured(torch.tensor([2.0]), torch.tensor(2.0))  # what is handed on shows where it was not measured again
    record = Chain(Value(10.0), GlobalNorm(10.0)).clip_([gradient], wrong)
    assert float(record.parts[1].norm_before) == 2.0
    record = Chain(Value(1.5), GlobalNorm(10.0)).clip_([gradient], wrong)
    assert float(record.parts[1].norm_before) == pytest.approx(math.hypot(1.5, 1.5))


def test_of_a_sharded_model_what_has_no_one_factor_comes_last():
    part = torch.tensor([3.0])
    stats = Measured(torch.tensor([5.0]), torch.tensor(5.0), sharded=True)
    with pytest.raises(
        RuntimeError, match=r"Chain: policy 1 comes after value, which has no one factor: .* put it first"
    ):
        Chain(Value(1.0), GlobalNorm(1.0)).clip_([part], stats)
    part = torch.tensor([3.0])
    Chain(GlobalNorm(2.5), Value(1.0)).clip_([part], stats)
    assert part.item() == 1.0


def test_every_policy_keeps_its_memory():
    def chain():
        return Chain(SkipSpike(window=20, warmup=5), GlobalNorm(1.0), ZClip(warmup=3))

    whole, first, second = chain(), chain(), chain()
    norms = [1.0, 1.2, 0.9, 1.1, 1.0, 50.0, 1.0, 1.3, 80.0, 1.0]

    def run(policy, norms):
        gradients = [[torch.tensor([norm])] for norm in norms]
        return [[float(part.threshold) for part in policy.clip_(g, measure(g)).parts] for g in gradients]

    expected = run(whole, norms)
    run(first, norms[:6])
    state = first.state_dict()
    assert list(state) == ["0", "2"]
    second.load_state_dict(state)
    assert run(second, norms[6:]) == expected[6:]
    second.load_state_dict({})  # of a chain without memories; these go on as they are


def test_hostile_gradients_in_an_empty_step():
    record = Chain(SkipNonFinite(), Value(1.0), GlobalNorm(1.0)).clip_([], measure([]))
    assert (record.norm_before, record.norm_after, record.clipped) == (0.0, 0.0, 0.0)


def test_elsewhere_than_on_the_cpu_nothing_waits():
    norms = torch.ones(2, device="meta")
    stats = Measured(norms, torch.linalg.vector_norm(norms))
    record = Chain(ZClip(), GlobalNorm(1.0), PerLayer(1.0)).clip_([torch.ones(3, device="meta")] * 2, stats)
    assert record.coefficient.is_meta
    assert record.clipped.is_meta


def test_refuses_what_is_no_chain():
    with pytest.raises(ValueError, match=r"Chain: policies must be one policy or more, got none"):
        Chain()
    with pytest.raises(TypeError, match=r"Chain: policies\[1\] must be a clip policy, got 1.0"):
        Chain(GlobalNorm(1.0), 1.0)
    with pytest.raises(TypeError, match=r"Chain: policies\[0\] must be a clip policy, got <class"):
        Chain(ZClip)
    policy = ZClip()
    with pytest.raises(ValueError, match=r"has one policy with a memory twice: make one for each"):
        Chain(policy, policy)
    assert repr(Chain(GlobalNorm(1.0))) == "Chain(GlobalNorm(max_norm=1.0, norm_type=2.0))"
