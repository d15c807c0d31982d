"""What a layer is given, against float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradwatch.inputs import ELEMENTS, data_rms, input_shares
from tests.tensors import INF, NAN, normal


def reference(x: Tensor) -> tuple[float, float, float]:
    """The three shares by their definitions."""
    x = x.double()
    size = x.square().mean()
    between = (x - x.mean(0)).square().mean() / size
    within = (x - x.mean(1, keepdim=True)).square().mean() / size
    return float(between), float(within), float((x.flatten(1) == 0).all(1).double().mean())


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("mean", [0.0, 1.0, 30.0])
def test_the_shares_against_float64(scale: float, mean: float) -> None:
    x = (normal(6, 5, 4) + mean) * scale
    x[2] = 0
    assert input_shares(x, sequences=True).tolist() == pytest.approx(reference(x), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype(dtype: torch.dtype) -> None:
    x = normal(6, 5, 4).to(dtype)
    assert input_shares(x, sequences=True).tolist() == pytest.approx(reference(x), rel=1e-3)


def test_what_is_alike_is_so_to_the_last_digits() -> None:
    x = normal(1, 7, 16).expand(9, 7, 16)
    assert input_shares(x, sequences=True)[0] < 1e-12
    assert input_shares(x.transpose(0, 1), sequences=True)[1] < 1e-12


@pytest.mark.parametrize(
    ("shape", "sequences", "known"),
    [
        ((6, 4), True, (True, False, True)),
        ((6, 5, 4), False, (True, False, True)),  # channels, not places
        ((6, 1, 4), True, (True, False, True)),
        ((6, 3, 4, 4), True, (True, False, True)),
        ((1, 5, 4), True, (False, False, False)),
        ((0, 4), False, (False, False, False)),
        ((6, 0), False, (False, False, False)),
    ],
)
def test_what_cannot_be_said_is_nan(shape: tuple[int, ...], sequences: bool, known: tuple[bool, ...]) -> None:
    found = input_shares(normal(*shape), sequences).tolist()
    assert tuple(not math.isnan(share) for share in found) == known


def test_nothing_but_zeros() -> None:
    assert input_shares(torch.zeros(3, 2, 2), sequences=True).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("value", [NAN, INF])
def test_what_is_not_finite_makes_the_shares_unknown(value: float) -> None:
    x = normal(4, 3)
    x[0, 0] = value
    between, _, nothing = input_shares(x, sequences=False).tolist()
    assert math.isnan(between)
    assert nothing == 0.0


def test_of_a_large_input_the_first_examples_are_looked_at() -> None:
    x = torch.zeros(8, ELEMENTS // 4)
    x[:4] = normal(4, ELEMENTS // 4)
    assert input_shares(x, sequences=False)[2] == 0.0
    x = torch.ones(4, 2 * ELEMENTS)
    x[1] = 0.0
    assert input_shares(x, sequences=False)[2] == 0.5  # never fewer than two


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_the_size_of_data_against_float64(scale: float, dtype: torch.dtype) -> None:
    x = (scale * (normal(6, 5, 4) + 1)).to(dtype)
    expected = float(x.double().square().mean().sqrt())
    assert float(data_rms(x)) == pytest.approx(expected, rel=1e-6)
    assert float(data_rms(torch.cat([x, torch.zeros(30, 5, 4, dtype=dtype)]))) == pytest.approx(expected, rel=1e-6)


def test_the_size_of_data_whose_squares_are_beyond_float32() -> None:
    assert float(data_rms(torch.full((4, 2), 1e30))) == pytest.approx(1e30)
    assert float(data_rms(torch.full((4, 2), 1e-30))) == pytest.approx(1e-30)


@pytest.mark.parametrize("value", [NAN, INF])
def test_the_size_of_data_that_are_not_finite(value: float) -> None:
    assert float(data_rms(torch.tensor([[value], [1.0]]))) == pytest.approx(value, nan_ok=True)


def test_what_other_layers_make_is_no_data() -> None:
    assert math.isnan(data_rms(torch.ones(4, 2, requires_grad=True)))
    assert math.isnan(data_rms(torch.ones(0, 2)))
    assert math.isnan(data_rms(torch.zeros(4, 2)))  # nothing is there, as of a state at its start
    assert float(data_rms(torch.eye(9))) == 1.0  # one-hot vectors
    assert float(data_rms(torch.full((1, 4), 3.0))) == 3.0  # a batch of one


def test_the_size_of_large_data_is_that_of_the_first_examples() -> None:
    x = torch.ones(8, ELEMENTS // 4)
    x[4:] = 9.0
    assert float(data_rms(x)) == 1.0
