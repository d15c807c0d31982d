"""one_target() of squared errors whose targets are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gradwatch.one_target import MEASURED, one_target
from tests.tensors import normal

N = 64


def told(outputs: Tensor, loss: Callable[[Tensor], Tensor]) -> bool:
    outputs = outputs.detach().clone().requires_grad_()
    loss(outputs).backward()
    assert outputs.grad is not None
    return bool(one_target(outputs.detach().flatten(), outputs.grad.flatten()))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("loss", [F.mse_loss, lambda z, y: (z - y).square().sum(), lambda z, y: 0.5 * F.mse_loss(z, y)])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_targets_that_are_broadcast(loss: Callable[[Tensor, Tensor], Tensor], scale: float) -> None:
    z, targets = normal(N, 1), scale * normal(N, seed=1) + 3.217
    assert told(z, lambda z: loss(z, targets))
    assert not told(z, lambda z: loss(z[:, 0], targets))
    assert not told(z, lambda z: loss(z, targets[:, None]))


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, 0.9, 0.95, 0.05, 25.0])
def test_one_target_that_somebody_chose_is_no_mistake(target: float) -> None:
    """As that of a discriminator for all real examples."""
    assert not told(normal(N, 1), lambda z: (z - target).square().mean())


@pytest.mark.parametrize("slope", [0.5, 1.9, 2.1])
def test_a_line_that_is_fitted_to_a_line_is_none(slope: float) -> None:
    x = normal(N, 1)
    assert not told(slope * x + 0.3, lambda z: F.mse_loss(z, 2 * x + 1))


@pytest.mark.parametrize("spread", [1e-4, 0.01, 1.0])
def test_nor_are_targets_that_are_nearly_the_same(spread: float) -> None:
    targets = spread * normal(N, 1, seed=1) + 3.217
    assert not told(normal(N, 1), lambda z: F.mse_loss(z, targets))


def test_nor_is_a_spread_that_is_to_be_larger_or_less() -> None:
    assert not told(normal(N, 1), lambda z: -z.var())
    assert not told(normal(N, 1), lambda z: z.var())


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_nothing_is_told_of_nothing(value: float) -> None:
    assert not one_target(torch.full((N,), value), torch.ones(N))
    assert not one_target(normal(N), torch.full((N,), value))
    few = normal(MEASURED - 1)
    assert not one_target(few, few - 3.217)
