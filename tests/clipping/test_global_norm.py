"""GlobalNorm against torch's own clip_grad_norm_."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import clip_grad_norm_

from gradwatch.clipping import GlobalNorm
from gradwatch.stats import measure
from tests.models import GALLERY, as_float64, backward, build


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 12), max_size=3), min_size=1, max_size=5),
    exponent=st.integers(-6, 6),
    max_norm=st.floats(1e-6, 1e6),
    seed=st.integers(0, 2**32),
)
def test_clips_as_torch_bit_for_bit(shapes, exponent, max_norm, seed):
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator) * 10.0**exponent
    ours = [p.grad.clone() for p in parameters]
    record = GlobalNorm(max_norm).clip_(ours, measure(ours))
    total = clip_grad_norm_(parameters, max_norm)
    if float(total) > max_norm:
        assert torch.equal(record.norm_before, total)
    assert float(record.norm_before) == pytest.approx(float(total), rel=1e-6)
    for mine, p in zip(ours, parameters):
        assert torch.equal(mine, p.grad)


@pytest.mark.parametrize("name", sorted(set(GALLERY) - {"sparse_embedding", "mixed_dtypes", "complex_parameters"}))
def test_clips_every_model_as_torch(name):
    case = build(name)
    backward(case)
    gradients = [p.grad.clone() for p in case.model.parameters() if p.grad is not None]
    max_norm = 0.5 * float(measure(gradients).total_norm)
    GlobalNorm(max_norm).clip_(gradients, measure(gradients))
    clip_grad_norm_(case.model.parameters(), max_norm)
    for mine, theirs in zip(gradients, [p.grad for p in case.model.parameters() if p.grad is not None]):
        # A layer that is too large for torch's float32 sums has a more exact norm here.
        torch.testing.assert_close(mine, theirs, rtol=1e-5 if name == "wide_layer" else 0, atol=0)


@pytest.mark.parametrize("name", ["sparse_embedding", "mixed_dtypes", "complex_parameters"])
def test_clips_what_torch_cannot_clip_exactly(name):
    case = build(name)
    backward(case, scale=100.0)
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None]
    before = [torch.from_numpy(as_float64(g).copy()) for g in gradients]
    max_norm = 0.25 * float(measure(gradients).total_norm)
    GlobalNorm(max_norm).clip_(gradients, measure(gradients))
    for old, new in zip(before, gradients):
        rounding = torch.finfo(new.dtype).eps
        torch.testing.assert_close(torch.from_numpy(as_float64(new)), 0.25 * old, rtol=4 * rounding + 1e-6, atol=1e-7)


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


def test_finite_gradients_whose_squares_overflow_are_clipped():
    gradient = torch.full((4,), 1e25)
    GlobalNorm(max_norm=1.0).clip_([gradient], measure([gradient]))
    torch.testing.assert_close(gradient, torch.full((4,), 0.5))
