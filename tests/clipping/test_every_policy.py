"""What every clip policy owes its user, whatever the gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping import AGC, Chain, ClipPolicy, GlobalNorm, PerGroup, PerLayer, Value
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured, measure
from tests.models import as_float64

NAN, INF = float("nan"), float("inf")

POLICIES = {
    "global_norm": GlobalNorm,
    "global_norm_inf": lambda limit: GlobalNorm(limit, norm_type=INF),
    "value": Value,
    "per_layer": PerLayer,
    "agc": lambda limit: AGC(limit, eps=1.0),  # the weights are zero, so that eps counts for each unit
    "per_group": lambda limit: PerGroup({"even.*": limit, "*": Value(2 * limit)}),
    "chain": lambda limit: Chain(Value(limit), GlobalNorm(limit)),
}
"""Those without a memory, each from its limit."""

every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

HOSTILE = {
    "nan": [torch.tensor([NAN, 1.0]), torch.tensor([2.0])],
    "inf": [torch.tensor([INF, -INF, 1.0])],
    "zero": [torch.zeros(3), torch.zeros(2)],
    "none at all": [],
    "no element": [torch.zeros(0), torch.zeros(2, 0)],
    "no dimension": [torch.tensor(30.0)],
    "one of a kind each": [torch.full((2,), 9.0, dtype=dtype) for dtype in DTYPES],
    "sparse": [torch.sparse_coo_tensor([[0, 1]], torch.tensor([9.0, 1.0]), (5,), check_invariants=True)],
    "rows of an embedding": [
        torch.sparse_coo_tensor([[4, 0, 4]], torch.arange(6.0).view(3, 2), (5, 2), check_invariants=True)
    ],
    "sparse with repeated rows": [
        torch.sparse_coo_tensor([[1, 1, 3]], torch.tensor([9.0, 1.0, 2.0]), (5,), check_invariants=True)
    ],
    "sparse and dense": [
        torch.sparse_coo_tensor([[0]], torch.tensor([9.0]), (5,), check_invariants=True),
        torch.ones(3),
    ],
    "complex": [torch.tensor([3 + 4j, 0.1j]), torch.tensor([2.0])],
    "half at its limit": [torch.full((3,), 65504.0, dtype=torch.float16)],
    "float8": [torch.full((1,), 2.0).to(torch.float8_e4m3fn), torch.full((5,), -1.0).to(torch.float8_e5m2)],
    "transposed": [torch.arange(12.0).reshape(3, 4).t()],
    "channels_last": [torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last) * 5],
    "tiny": [torch.full((3,), 1e-38)],
    "huge": [torch.full((3,), 1e30)],
}


def stats_of(gradients) -> Measured:
    """With names and parameters, as the monitor gives them: two in a layer."""
    measured = measure(gradients)
    names = [f"{('even', 'odd')[i // 2 % 2]}.{i // 2}.{('weight', 'bias')[i % 2]}" for i in range(len(gradients))]
    parameters = [torch.zeros(g.shape, dtype=g.dtype) for g in gradients]
    return Measured(measured.norms, measured.total_norm, names=names, parameters=parameters)


def gradients_of(shapes, dtype, exponent, seed) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(s, generator=generator, dtype=torch.float64) * 10.0**exponent).to(dtype) for s in shapes]


def copies(gradients) -> list[torch.Tensor]:
    return [g.clone() for g in gradients]


def same_bits(first, second) -> bool:
    return all(np.array_equal(as_float64(a), as_float64(b), equal_nan=True) for a, b in zip(first, second))


def total(gradients) -> float:
    return float(np.linalg.norm([np.linalg.norm(as_float64(g).reshape(-1)) for g in gradients]))


GRADIENTS = st.builds(
    gradients_of,
    shapes=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    exponent=st.integers(-3, 3),
    seed=st.integers(0, 2**32),
)
LIMITS = st.floats(0.01, 100)


@every_policy
def test_is_a_policy(policy):
    assert isinstance(policy(1.0), ClipPolicy)


@every_policy
@pytest.mark.parametrize("name", HOSTILE)
def test_takes_hostile_gradients(policy, name):
    gradients = copies(HOSTILE[name])
    record = policy(1.5).clip_(gradients, stats_of(gradients))
    assert isinstance(record, ClipRecord)
    assert record.threshold == 1.5 or record.policy in ("per_group", "chain")
    for before, after in zip(HOSTILE[name], gradients):
        old, new = as_float64(before), as_float64(after)
        assert (after.dtype, after.shape, after.layout) == (before.dtype, before.shape, before.layout)
        np.testing.assert_array_equal(np.isnan(new), np.isnan(old))
        finite = np.isfinite(old)
        assert np.all(np.abs(new[finite]) <= np.abs(old[finite]))
    if np.isfinite(total(HOSTILE[name])):
        assert total(gradients) <= total(HOSTILE[name])
        rounded = 0.5 * max([torch.finfo(g.dtype).eps for g in gradients], default=0)
        assert float(record.norm_after) == pytest.approx(total(gradients), rel=max(rounded, 1e-2), abs=1e-6)


@every_policy
@settings(max_examples=40, deadline=None)
@given(gradients=GRADIENTS, limit=LIMITS)
def test_norm_before_is_the_norm_and_norm_after_too(policy, gradients, limit):
    before = total(gradients)
    record = policy(limit).clip_(gradients, stats_of(gradients))
    resolution = 4 * torch.finfo(gradients[0].dtype).eps
    assert float(record.norm_before) == pytest.approx(before, rel=1e-6)
    assert float(record.norm_after) == pytest.approx(total(gradients), rel=max(resolution, 1e-6), abs=1e-6)


@every_policy
@settings(max_examples=40, deadline=None)
@given(gradients=GRADIENTS, share=st.floats(0.01, 0.99))
def test_untouched_below_the_limit_bit_for_bit(policy, gradients, share):
    before = copies(gradients)
    policy(total(gradients) / share + 1e-5).clip_(gradients, stats_of(gradients))
    assert same_bits(gradients, before)


@every_policy
@settings(max_examples=40, deadline=None)
@given(gradients=GRADIENTS, limit=LIMITS)
def test_clipping_twice_is_clipping_once(policy, gradients, limit):
    policy(limit).clip_(gradients, stats_of(gradients))
    once = copies(gradients)
    policy(limit).clip_(gradients, stats_of(gradients))
    # The 1e-6 in the formula of torch's clip_grad_norm_ is taken off twice.
    resolution = 2 * torch.finfo(gradients[0].dtype).eps + 2e-6 / limit
    for a, b in zip(once, gradients):
        torch.testing.assert_close(a, b, rtol=resolution, atol=1e-7)


@every_policy
@settings(max_examples=40, deadline=None)
@given(gradients=GRADIENTS, limit=LIMITS)
def test_no_element_changes_its_sign_or_grows(policy, gradients, limit):
    before = copies(gradients)
    policy(limit).clip_(gradients, stats_of(gradients))
    for old, new in zip(before, gradients):
        assert torch.all(new * old >= 0)
        assert torch.all(new.abs() <= old.abs())


@settings(max_examples=40, deadline=None)
@given(gradients=GRADIENTS, limit=LIMITS)
def test_global_norm_is_at_most_the_limit_and_keeps_the_direction(gradients, limit):
    before = copies(gradients)
    GlobalNorm(limit).clip_(gradients, stats_of(gradients))
    resolution = torch.finfo(gradients[0].dtype).eps
    assert total(gradients) <= limit * (1 + 2 * resolution) + 1e-7
    factor = min(1.0, limit / (total(before) + 1e-6))
    for old, new in zip(before, gradients):
        np.testing.assert_allclose(as_float64(new), factor * as_float64(old), rtol=4 * resolution, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(gradients=GRADIENTS, limit=LIMITS)
def test_value_is_at_most_the_limit_and_leaves_smaller_elements(gradients, limit):
    before = copies(gradients)
    Value(limit).clip_(gradients, stats_of(gradients))
    rounded = float(torch.tensor(limit, dtype=gradients[0].dtype))
    for old, new in zip(before, gradients):
        np.testing.assert_array_equal(as_float64(new), as_float64(old).clip(-rounded, rounded))


@pytest.mark.parametrize(("policy", "argument"), [(GlobalNorm, "max_norm"), (Value, "max_value")])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "must be above 0, got 0"),
        (-1.5, ValueError, r"must be above 0, got -1\.5"),
        (NAN, ValueError, "must be above 0, got nan"),
        ("1", TypeError, "must be a number, got '1'"),
        (None, TypeError, "must be a number, got None"),
        (True, TypeError, "must be a number, got True"),
    ],
)
def test_bad_arguments(policy, argument, value, error, message):
    with pytest.raises(error, match=f"{policy.__name__}: {argument} {message}"):
        policy(**{argument: value})
