from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradwatch.linear_range import SIGMOID, linear_range

DERIVATIVES: dict[str, tuple[nn.Module, float]] = {
    "sigmoid": (nn.Sigmoid(), 0.25),
    "tanh": (nn.Tanh(), 1.0),
    "softsign": (nn.Softsign(), 1.0),
    "hardsigmoid": (nn.Hardsigmoid(), 1 / 6),
    "hardtanh": (nn.Hardtanh(-0.5, 2.0), 1.0),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_the_linear_range_is_where_there_is_a_derivative(name: str) -> None:
    activation, largest = DERIVATIVES[name]
    x = torch.linspace(-9, 9, 3001, dtype=torch.float64, requires_grad=True)
    y = activation(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    low, high = linear_range(activation) or (math.nan, math.nan)
    assert torch.equal((y <= low) | (y >= high), slope < 0.05 * largest)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.Softmax(), nn.Linear(1, 1)])
def test_the_others_have_none(activation: nn.Module) -> None:
    assert linear_range(activation) is None


def test_a_sigmoid_s_is_known_by_itself() -> None:
    assert linear_range(nn.Sigmoid()) == SIGMOID
