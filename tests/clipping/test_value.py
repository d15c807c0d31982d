"""Value against torch's own clip_grad_value_."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import clip_grad_value_

from gradwatch.clipping import Value
from gradwatch.stats import Measured, measure
from tests.clipping.test_every_policy import DTYPES
from tests.models import GALLERY, as_float64, backward, build
from tests.tensors import INF, NAN, normal


def clip(gradients, max_value):
    return Value(max_value).clip_(gradients, measure(gradients))


@settings(max_examples=200)
@given(
    shapes=st.lists(st.lists(st.integers(0, 12), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3),
    exponent=st.integers(-6, 6),
    special=st.sampled_from([1.0, 0.0, -0.0, NAN, INF, -INF]),
    max_value=st.floats(1e-6, 6e4),
    seed=st.integers(0, 2**31),
)
def test_clips_as_torch_bit_for_bit_whatever_the_dtypes(shapes, dtypes, exponent, special, max_value, seed):
    parameters = [nn.Parameter(torch.zeros(shape, dtype=dtypes[i % len(dtypes)])) for i, shape in enumerate(shapes)]
    for i, p in enumerate(parameters):
        p.grad = (normal(*p.shape, dtype=torch.float64, seed=seed + i) * 10.0**exponent).to(p.dtype)
        p.grad.view(-1)[:1] *= special
    ours = [p.grad.clone() for p in parameters]
    clip(ours, max_value)
    clip_grad_value_(parameters, max_value)
    for mine, p in zip(ours, parameters):
        np.testing.assert_array_equal(as_float64(mine), as_float64(p.grad))
        assert torch.equal(mine.signbit(), p.grad.signbit())  # that of zero too


@pytest.mark.parametrize("name", GALLERY)
def test_clips_every_model_as_numpy(name):
    case = build(name)
    backward(case, scale=10.0)
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None]
    before = [as_float64(g).copy() for g in gradients]
    record = clip(gradients, 0.125)
    for old, new in zip(before, gradients):
        expected = old.clip(-0.125, 0.125) if old.dtype == np.float64 else _parts(old, -0.125, 0.125)
        np.testing.assert_array_equal(as_float64(new), expected)
    assert float(record.norm_after) == pytest.approx(float(measure(gradients).total_norm), rel=1e-6)


def _parts(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return values.real.clip(low, high) + 1j * values.imag.clip(low, high)


def test_a_conjugated_gradient_keeps_its_sign():
    gradient = torch.tensor([3 + 4j, 0.5 - 0.25j]).conj()
    clip([gradient], 1.0)
    assert gradient.tolist() == [1 - 1j, 0.5 + 0.25j]


def test_one_element_a_little_above_the_limit_is_clipped():
    gradient = torch.tensor([1.0 + 2**-23, 1e-5, 0.0])
    clip([gradient], 1.0)
    assert gradient.tolist() == [1.0, pytest.approx(1e-5), 0.0]


def test_the_record_by_hand():
    gradient = torch.tensor([-3.0, 4.0, 0.5])
    record = clip([gradient], 3.0)
    assert (record.policy, record.threshold) == ("value", 3.0)
    assert float(record.norm_before) == pytest.approx(25.25**0.5)
    assert float(record.norm_after) == pytest.approx(18.25**0.5)
    assert np.isnan(record.coefficient)
    assert clip([torch.tensor([0.5])], 3.0).coefficient == 1.0


def test_inf_becomes_the_limit_and_nan_stays():
    gradient = torch.tensor([INF, -INF, NAN, 0.5])
    clip([gradient], 2.0)
    np.testing.assert_array_equal(gradient.numpy(), np.array([2.0, -2.0, NAN, 0.5], np.float32))


@pytest.mark.parametrize(("limit", "largest"), [(1e5, 65504.0), (INF, INF)])
def test_a_limit_that_float16_cannot_hold(limit, largest):
    gradients = [torch.tensor([INF, 7.0], dtype=torch.float16), torch.tensor([1e6, 7.0])]
    clip(gradients, limit)
    assert gradients[0].tolist() == [largest, 7.0]
    assert gradients[1].tolist() == [min(1e6, limit), 7.0]


def test_of_a_sharded_model_the_norm_after_is_not_known():
    gradient = torch.tensor([3.0, 0.5])
    whole = torch.tensor(5.0)
    record = Value(1.0).clip_([gradient], Measured(whole[None], whole, sharded=True))
    assert gradient.tolist() == [1.0, 0.5]
    assert np.isnan(float(record.norm_after))


def test_elsewhere_than_on_the_cpu_nothing_waits():
    gradients = [torch.ones(3, device="meta"), torch.ones(2, device="meta", dtype=torch.complex64)]
    norms = torch.ones(2, device="meta")
    record = Value(1.0).clip_(gradients, Measured(norms, torch.linalg.vector_norm(norms)))
    assert record.norm_after.is_meta
    assert record.clipped.is_meta
