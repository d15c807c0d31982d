"""Multiplying in place."""

import numpy as np
import pytest
import torch

from gradwatch.clipping.scale import scale_, scale_each_
from tests.models import as_float64

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e5m2]


def kinds() -> list[torch.Tensor]:
    dense = [torch.tensor([4.0, -8.0]).to(dtype) for dtype in DTYPES]
    sparse = torch.sparse_coo_tensor([[1, 1]], torch.tensor([1.0, 3.0]), (3,), check_invariants=True)
    return [*dense, torch.zeros(0), torch.tensor(4.0), torch.ones(2, 3).t() * 4, sparse]


def test_every_kind_of_gradient_is_halved_in_place():
    gradients = kinds()
    before = [
        (as_float64(g).copy(), g.dtype, g.layout, g.stride() if g.layout is torch.strided else ()) for g in gradients
    ]
    same = [*gradients]
    scale_(gradients, torch.tensor(0.5))
    for old, new, kept in zip(before, gradients, same):
        assert new is kept
        assert (new.dtype, new.layout, new.stride() if new.layout is torch.strided else ()) == old[1:]
        np.testing.assert_array_equal(as_float64(new), old[0] / 2)


def test_a_factor_of_float64_takes_no_gradient_with_it():
    gradient = torch.tensor([4.0], dtype=torch.float16)
    scale_([gradient], torch.tensor(0.25, dtype=torch.float64))
    assert gradient.dtype is torch.float16
    assert gradient.item() == 1.0


def test_each_by_its_own_factor():
    gradients = [torch.tensor([4.0, 8.0]), torch.tensor([4.0]).to(torch.float8_e4m3fn), torch.tensor([[1.0], [2.0]])]
    scale_each_(gradients, [torch.tensor(0.5), torch.tensor(0.25), torch.tensor([[3.0], [0.5]])])
    assert [g.float().tolist() for g in gradients] == [[2.0, 4.0], [1.0], [[3.0], [1.0]]]


def test_what_would_be_multiplied_by_1_is_not_touched():
    gradients = [torch.tensor([float("nan"), 2.0]), torch.tensor([2.0])]
    scale_each_(gradients, [torch.tensor(1.0), torch.tensor(0.5)])
    assert [g._version for g in gradients] == [0, 1]


@pytest.mark.parametrize("gradients", [[], [torch.zeros(0)]])
def test_nothing(gradients):
    scale_(gradients, torch.tensor(0.5))
    scale_each_(gradients, [torch.tensor(0.5)] * len(gradients))
