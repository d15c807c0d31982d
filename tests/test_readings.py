"""Numbers that are read off a gradient, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gradwatch.readings import MATRIX, SAMPLE, norm, on_host, slopes, weight_norm
from gradwatch.stats import TOGETHER
from tests.tensors import INF, NAN, normal, reference, sparse


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("size", [1, 1000, TOGETHER + 1])
def test_a_norm_is_that_of_float64(dtype: torch.dtype, size: int) -> None:
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert norm(tensor) == pytest.approx(reference(tensor), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-37, 1e-25, 1e-15, 1e15, 1e25, 1e37])
def test_a_norm_neither_underflows_nor_overflows(scale: float) -> None:
    tensor = normal(50) * scale
    assert norm(tensor) == pytest.approx(reference(tensor), rel=1e-6)


def test_a_norm_of_several_is_that_of_all_of_them() -> None:
    parts = [normal(3, 4), normal(7, seed=1), normal(2, 2, seed=2)]
    assert norm(*parts) == pytest.approx(math.hypot(*map(reference, parts)), rel=1e-6)


def test_a_norm_of_a_sparse_gradient_sums_what_repeats() -> None:
    gradient = sparse(3, 3, 7)
    assert norm(gradient) == pytest.approx(reference(gradient), rel=1e-6)


@pytest.mark.parametrize(("values", "expected"), [([], 0.0), ([0.0, 0.0], 0.0), ([1.0, -INF], INF)])
def test_a_norm_of_nothing_zero_and_inf(values: list[float], expected: float) -> None:
    assert norm(torch.tensor(values)) == expected


def test_a_norm_of_nan_is_nan() -> None:
    assert math.isnan(norm(torch.tensor([1.0, NAN])))


def test_a_norm_leaves_no_trace_in_the_graph() -> None:
    x = torch.ones(3, requires_grad=True)
    assert isinstance(norm(x * 2), float)
    assert x.grad is None


def from_float64(slope: np.ndarray, largest: float) -> list[float]:
    return [len(slope), float(np.linalg.norm(slope)), int((slope != 0).sum()), int((abs(slope) > 0.05 * largest).sum())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid, torch.relu, torch.nn.functional.gelu])
def test_slopes_are_the_derivative(function: object, dtype: torch.dtype) -> None:
    x = (3 * normal(40, 50, dtype=dtype)).requires_grad_()
    arrived = normal(40, 50, dtype=dtype, seed=1)
    (sent,) = torch.autograd.grad(function(x), x, arrived)
    wide = x.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(function(wide).sum(), wide)
    found = slopes(sent, arrived, 1.0)
    expected = from_float64(exact.numpy().ravel(), 1.0)
    tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-5
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], rel=tolerance)
    assert found[3] == pytest.approx(expected[3], rel=tolerance)
    if function is torch.relu:
        assert found[2] == expected[2]


@pytest.mark.parametrize("tiny", [0.0, 1e-40])
def test_where_nothing_arrives_the_slope_is_not_known(tiny: float) -> None:
    arrived, sent = torch.tensor([tiny, 2.0, -tiny, 4.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert slopes(sent, arrived, 1.0) == [2, 0.5, 1, 1]
    assert slopes(torch.zeros(3), torch.full((3,), tiny), 1.0) == [0, 0, 0, 0]


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e20, 1e36])
def test_slopes_know_no_scale(scale: float) -> None:
    arrived = normal(1000).clamp(0.1) * scale
    assert slopes(arrived / 4, arrived, 0.25) == pytest.approx([1000, 0.25 * 1000**0.5, 1000, 1000], rel=1e-5)


@pytest.mark.parametrize("shape", [(1024, 256), (1 << 17,), (3, 500, 501), (16, 64, 32, 32)])
def test_of_many_elements_columns_are_looked_at_alike(shape: tuple[int, ...]) -> None:
    """Every other column, or channel, passes nothing."""
    arrived = normal(*shape)
    passes = torch.arange(math.prod(shape)).reshape(shape) % 2
    known, size, nonzero, passing = slopes(arrived * passes, arrived, 1.0)
    assert SAMPLE // 3 < known <= SAMPLE
    assert size**2 / known == pytest.approx(0.5, abs=0.01)
    assert nonzero == passing == pytest.approx(known / 2, rel=0.02)


def test_of_channels_last_the_same_elements_are_taken_of_both() -> None:
    arrived = normal(8, 64, 32, 32).to(memory_format=torch.channels_last)
    for sent in (arrived * 0.5, (arrived * 0.5).contiguous()):
        known, size, *_ = slopes(sent, arrived, 1.0)
        assert size == pytest.approx(0.5 * known**0.5, rel=1e-5)


def test_readings_come_in_their_order() -> None:
    given: list[float | Tensor] = [1.0, torch.tensor(2.0), 3, torch.tensor(4.0, dtype=torch.float64), NAN, INF]
    assert on_host(given) == pytest.approx([1.0, 2.0, 3.0, 4.0, NAN, INF], nan_ok=True)
    assert on_host([]) == []


@pytest.mark.parametrize("shape", [(40, 30), (3, MATRIX), (4000, 700), (1000, 60, 3, 3)])
def test_a_weights_norm_is_that_of_float64_and_of_a_large_one_nearly(shape: tuple[int, ...]) -> None:
    weight = normal(*shape)
    is_read_whole = weight.numel() <= MATRIX or len(weight) < 16
    assert on_host([weight_norm(weight)]) == [pytest.approx(reference(weight), rel=1e-6 if is_read_whole else 1e-2)]
