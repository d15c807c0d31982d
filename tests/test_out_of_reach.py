"""out_of_reach against sums over the elements one by one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gradwatch.out_of_reach import out_of_reach, reach
from tests.tensors import normal

RELU, SIGMOID = (0.0, math.inf), (0.0127, 0.9873)


def one_by_one(output: Tensor, gradient: Tensor, limits: tuple[float, float]) -> float:
    low, high = limits
    pairs = list(zip(output.flatten().tolist(), gradient.double().flatten().tolist()))
    beyond = sum(g * g for y, g in pairs if (y <= low and g > 0) or (y >= high and g < 0))
    return beyond / sum(g * g for _, g in pairs)


@pytest.mark.parametrize("limits", [RELU, SIGMOID])
@pytest.mark.parametrize("shape", [(64,), (64, 1), (16, 5), (4, 3, 5, 5)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_share_by_definition(limits: tuple[float, float], shape: tuple[int, ...], scale: float) -> None:
    x, gradient = normal(*shape), normal(*shape, seed=1) * scale
    output = torch.relu(x) if limits is RELU else torch.sigmoid(6 * x)
    found = float(out_of_reach(output, gradient, limits))
    assert found == pytest.approx(one_by_one(output, gradient, limits), rel=1e-5)
    assert found > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_any_precision(dtype: torch.dtype) -> None:
    output, gradient = torch.relu(normal(8, 4)).to(dtype), normal(8, 4, seed=1).to(dtype)
    assert float(out_of_reach(output, gradient, RELU)) == pytest.approx(one_by_one(output, gradient, RELU), rel=1e-3)


@pytest.mark.parametrize("gradient", [torch.zeros(4), torch.full((4,), math.nan), torch.full((4,), math.inf)])
@pytest.mark.parametrize("limits", [RELU, SIGMOID])
def test_of_nothing_and_of_what_is_not_finite_nothing_is_known(gradient: Tensor, limits: tuple[float, float]) -> None:
    assert math.isnan(out_of_reach(torch.zeros(4), gradient, limits))


def test_outputs_that_are_asked_inwards_or_not_held() -> None:
    output = torch.tensor([0.001, 0.999, 0.5])
    assert out_of_reach(output, torch.tensor([-1.0, 2.0, 3.0]), SIGMOID) == 0


@pytest.mark.parametrize("targets", [torch.randn(64, 1, generator=torch.Generator().manual_seed(0)) * 2, None])
def test_a_cross_entropy_of_probabilities_asks_for_as_much_whatever_was_learned(targets: Tensor | None) -> None:
    logits = 8 * normal(64, 1).sign() + normal(64, 1, seed=1) / 10
    p = torch.sigmoid(logits).requires_grad_()
    loss = F.binary_cross_entropy(p, (logits > 0).float()) if targets is None else F.mse_loss(p, targets)
    loss.backward()
    assert p.grad is not None
    assert math.isnan(out_of_reach(p.detach(), p.grad, SIGMOID)) == (targets is None)


def test_an_overlap_asks_for_as_much_within_each_picture() -> None:
    y = (normal(3, 8, 8) + torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1) > 0).float()
    p = (0.998 * y + 0.001).requires_grad_()
    overlap = 2 * (p * y).sum((1, 2)) / (p.sum((1, 2)) + y.sum((1, 2)))
    (1 - overlap).mean().backward()
    assert p.grad is not None
    assert math.isnan(out_of_reach(p.detach(), p.grad, SIGMOID))


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (torch.relu, RELU),
        (lambda x: torch.relu(x).squeeze(-1), RELU),
        (lambda x: torch.relu_(x * 1).reshape(2, 2).t().float(), RELU),
        (lambda x: torch.sigmoid(x).view(-1), SIGMOID),
        (lambda x: 2 * torch.relu(x), None),
        (lambda x: torch.relu(x)[:2], None),
        (torch.tanh, None),
        (F.leaky_relu, None),
        (lambda x: x, None),
        (lambda x: x.detach(), None),
    ],
)
def test_what_made_the_outputs(behind: nn.Module, expected: tuple[float, float] | None) -> None:
    found = reach(behind(torch.ones(4, 1, requires_grad=True)))
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-4))
