"""GlobalNorm against torch's own clip_grad_norm_."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import clip_grad_norm_

from gradwatch.clipping import GlobalNorm, global_norm
from gradwatch.clipping.global_norm import LARGE, TOLERANCE
from gradwatch.stats import Measured, measure
from tests.clipping.test_every_policy import DTYPES, copies, same_bits, total
from tests.models import GALLERY, as_float64, backward, build
from tests.tensors import normal

KINDS = {
    "normal": lambda n, seed: normal(n, seed=seed),
    "equal": lambda n, seed: torch.full((n,), 0.1 + 0.01 * (seed % 7)),
    "heavy-tailed": lambda n, seed: normal(n, seed=seed).mul(2).exp(),
    "mostly zero": lambda n, seed: normal(n, seed=seed) * (normal(n, seed=seed + 1) > 1.3),
}


REFUSED = {"sparse_embedding", "float8_parameter"}
"""Models whose gradients torch does not clip."""


def by_torch(gradients: list[torch.Tensor], max_norm: float) -> tuple[list[torch.Tensor], float]:
    """What clip_grad_norm_ makes of them, and its total."""
    parameters = [nn.Parameter(torch.zeros_like(g), requires_grad=g.dtype.is_floating_point) for g in gradients]
    for p, g in zip(parameters, gradients):
        p.grad = g.clone()
    theirs = float(clip_grad_norm_(parameters, max_norm))
    return [p.grad for p in parameters], theirs


def is_as_torch_or_nearer(gradients: list[torch.Tensor], max_norm: float) -> bool:
    """Clip, hold the result against torch's and against float64, and say whether it had to be torch's."""
    true = total(gradients)
    theirs, their_total = by_torch(gradients, max_norm)
    ours = copies(gradients)
    record = GlobalNorm(max_norm).clip_(ours, measure(ours))
    assert float(record.norm_before) == pytest.approx(true, rel=1e-6)
    expected = min(1.0, max_norm / (true + 1e-6))
    error = abs(their_total - true) / true if true else 0.0
    not_asked = all(g.dtype in (torch.float16, torch.bfloat16) for g in gradients)
    not_asked |= any(g.numel() > LARGE for g in gradients)
    if error < 0.99 * TOLERANCE and not not_asked:
        assert same_bits(ours, theirs)
        assert float(record.coefficient) == pytest.approx(expected, rel=2 * TOLERANCE)
    elif error > 1.01 * TOLERANCE or not_asked:
        assert float(record.coefficient) == pytest.approx(expected, rel=1e-6)
    return error <= TOLERANCE and not not_asked


@settings(max_examples=100)
@given(
    kinds=st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([*KINDS])), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3),
    exponent=st.integers(-6, 6),
    share=st.floats(0.01, 1.2),
    seed=st.integers(0, 2**20),
)
def test_clips_as_torch_where_that_is_right_whatever_the_dtypes(kinds, dtypes, exponent, share, seed):
    gradients = [
        (KINDS[kind](n, seed + i) * 10.0 ** max(exponent, -3 if torch.float16 in dtypes else -6)).to(
            dtypes[i % len(dtypes)]
        )
        for i, (n, kind) in enumerate(kinds)
    ]
    finite = total(gradients)
    if np.isfinite(finite) and finite:
        is_as_torch_or_nearer(gradients, share * finite)


@settings(max_examples=100)
@given(
    shapes=st.lists(st.lists(st.integers(0, 12), max_size=3), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    exponent=st.integers(-8, 8),
    max_norm=st.floats(1e-9, 1e6),
    seed=st.integers(0, 2**32),
)
def test_clips_as_torch_bit_for_bit(shapes, dtype, exponent, max_norm, seed):
    gradients = [normal(*shape, dtype=dtype, seed=seed % 2**31 + i) * 10.0**exponent for i, shape in enumerate(shapes)]
    assert is_as_torch_or_nearer(gradients, max_norm)


@pytest.mark.parametrize("share", [0.5, 1 - 1e-6, 1 - 1e-7, 1.0, 1 + 1e-7, 1 + 1e-6, 1 + 5e-4, 2.0])
@pytest.mark.parametrize("norm", [1e-8, 1e-5, 1e-3, 1.0, 1e3])
def test_clips_as_torch_bit_for_bit_near_the_limit(norm, share):
    """torch's formula clips already a little below the limit, by the 1e-6 in it."""
    gradient = normal(700)
    gradient *= norm / float(gradient.norm())
    assert is_as_torch_or_nearer([gradient], share * float(gradient.norm()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 512, 513, 5_000, 65_537, 300_000, 1_000_000, 3_000_000])
def test_clips_as_torch_bit_for_bit_where_that_is_right(size, kind):
    gradients = [KINDS[kind](size, 1), normal(100), KINDS[kind](size // 3 + 1, 2)]
    as_torch = is_as_torch_or_nearer(gradients, 0.5 * total(gradients))
    assert as_torch or size > LARGE or (size >= 300_000 and kind in ("equal", "heavy-tailed"))


@pytest.mark.parametrize("share", [0.3, 2.0])
@pytest.mark.parametrize("name", sorted(set(GALLERY) - REFUSED))
def test_clips_every_model_as_torch(name, share):
    case = build(name)
    backward(case)
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None]
    assert is_as_torch_or_nearer(gradients, share * total(gradients))


NEARER = {
    "16,777,216 equal elements": [torch.full((1 << 24,), 0.1)],
    "squares above float32": [torch.full((4,), 1e25), torch.ones(3)],
    "squares above float16": [torch.full((9,), 60_000.0, dtype=torch.float16)],
    "bfloat16": [normal(40, 30, dtype=torch.bfloat16), normal(30, dtype=torch.bfloat16)],
    "float16": [normal(40, 30, dtype=torch.float16), normal(30, dtype=torch.float16)],
}


@pytest.mark.parametrize("name", NEARER)
def test_is_nearer_the_truth_where_torch_is_not_right(name):
    gradients = NEARER[name]
    max_norm = 0.5 * total(gradients)
    assert not is_as_torch_or_nearer(gradients, max_norm)
    theirs, _ = by_torch(gradients, max_norm)
    ours = copies(gradients)
    GlobalNorm(max_norm).clip_(ours, measure(ours))
    wanted = 0.5 * total(gradients) / (1 + 1e-6 / total(gradients))
    assert abs(total(ours) - wanted) <= 0.5 * abs(total(theirs) - wanted)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_clips_what_torch_refuses(name):
    case = build(name)
    backward(case)
    gradients = [p.grad for p in case.model.parameters()]
    with pytest.raises(NotImplementedError):
        by_torch(gradients, 1.0)
    before = [as_float64(g).copy() for g in gradients]
    GlobalNorm(0.25 * total(gradients)).clip_(gradients, measure(gradients))
    for old, new in zip(before, gradients):
        np.testing.assert_allclose(
            as_float64(new), 0.25 * old, rtol=1e-5, atol=1e-3 if name == "float8_parameter" else 0
        )


@pytest.mark.parametrize("why", ["torch before 2.6", "a sharded model"])
def test_the_true_total_where_that_of_torch_cannot_be_had(monkeypatch, why):
    def refuse(_):
        raise AssertionError("it would add this rank's parts alone")

    if why == "torch before 2.6":
        monkeypatch.setattr(global_norm, "_torchs_total", None)
    else:
        monkeypatch.setattr(global_norm, "_by_torch", refuse)
    gradient = torch.full((1000,), 3.0)
    whole = torch.tensor(6.0 * 1000**0.5, dtype=torch.float64)  # another rank has as much again, three times
    record = GlobalNorm(1.0).clip_([gradient], Measured(whole[None], whole, sharded=why == "a sharded model"))
    np.testing.assert_allclose(gradient.numpy(), 3 / (6 * 1000**0.5), rtol=1e-6)
    assert float(record.norm_after) == pytest.approx(1.0, rel=1e-6)


def test_elsewhere_than_on_the_cpu_nothing_waits():
    gradients = [torch.ones(600, device="meta"), torch.ones(3, device="meta", dtype=torch.bfloat16)]
    norms = torch.ones(2, device="meta")
    record = GlobalNorm(1.0).clip_(gradients, Measured(norms, torch.linalg.vector_norm(norms)))
    # A number of a meta tensor cannot be read, so none was; that numbers are as on the CPU is up to the operations.
    assert record.coefficient.is_meta
    assert record.norm_after.is_meta


def test_the_record_by_hand():
    gradient = torch.tensor([30.0, 40.0])
    record = GlobalNorm(max_norm=5.0).clip_([gradient], measure([gradient]))
    assert record.policy == "global_norm"
    assert (float(record.norm_before), record.threshold) == (50.0, 5.0)
    assert float(record.norm_after) == pytest.approx(5.0, rel=1e-6)
    assert float(record.coefficient) == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_total_that_is_not_finite_changes_nothing(value):
    gradients = [torch.tensor([1.0, value]), torch.tensor([7.0])]
    record = GlobalNorm(max_norm=0.1).clip_(gradients, measure(gradients))
    torch.testing.assert_close(gradients, [torch.tensor([1.0, value]), torch.tensor([7.0])], equal_nan=True)
    assert float(record.coefficient) == 1.0


@settings(max_examples=60, deadline=None)
@given(exponent=st.integers(-3, 6), share=st.floats(0.01, 2), seed=st.integers(0, 2**31))
def test_is_optaxs_rule_but_for_the_epsilon(exponent, share, seed):
    """clip_by_global_norm: ``g if |g| < max_norm else g / |g| * max_norm``, without torch's 1e-6."""
    gradients = [normal(n, dtype=torch.float64, seed=seed + n) * 10.0**exponent for n in (5, 3)]
    norm, before = total(gradients), [g.numpy().copy() for g in gradients]
    GlobalNorm(share * norm).clip_(gradients, measure(gradients))
    for old, new in zip(before, gradients):
        expected = old if norm < share * norm else old / norm * (share * norm)
        np.testing.assert_allclose(new.numpy(), expected, rtol=2e-6 / norm + 1e-9)
