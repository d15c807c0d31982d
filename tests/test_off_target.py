"""off_target against the variance of outputs and targets, whatever the loss is divided by."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gradwatch.off_target import FAR, FEW, off_target
from tests.tensors import normal

LOSSES = {
    "mean": F.mse_loss,
    "sum": lambda y, t: F.mse_loss(y, t, reduction="sum"),
    "examples": lambda y, t: F.mse_loss(y, t, reduction="sum") / len(y),
}


def told(outputs: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    outputs = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(outputs), outputs)
    scatter, offset = off_target(outputs.detach(), gradient)
    return float(scatter), float(offset)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(512,), (512, 1), (512, 3), (64, 2, 4, 4)])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_the_share_is_that_of_the_variances(loss: str, shape: tuple[int, ...], scale: float) -> None:
    outputs, targets = 3 * normal(*shape), normal(*shape, seed=1)
    error = (outputs - targets).double()
    centred = (outputs - outputs.mean(0)).double()
    expected = float((centred * error).sum() ** 2 / (centred.square().sum() * (error - error.mean(0)).square().sum()))
    assert expected == pytest.approx(0.9, abs=0.03)  # 9 / (9 + 1)
    scatter, offset = told(outputs * scale, lambda y: LOSSES[loss](y, targets * scale))
    assert scatter == pytest.approx(expected, rel=1e-4)
    assert offset < 0.2


@pytest.mark.parametrize("loss", LOSSES)
def test_what_all_examples_share(loss: str) -> None:
    outputs, targets = 0.1 * normal(64, 1), 20 + normal(64, 1, seed=1)
    error = (outputs - targets).double()
    expected = float(error.mean() ** 2 / error.square().mean())
    scatter, offset = told(outputs, lambda y: LOSSES[loss](y, targets))
    assert scatter < 0.1
    assert offset == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda y: F.mse_loss(y, y.detach() + 0.1 * normal(64)),  # what is learned
        lambda y: F.mse_loss(y, torch.zeros(64)),  # one target for all, as a discriminator has
        lambda y: F.l1_loss(y, normal(64, seed=2)),
        lambda y: F.binary_cross_entropy_with_logits(y, torch.zeros(64)),
        lambda y: -y.mean(),  # a critic's: the same for all
        lambda y: -y.sum(),
        lambda y: 0 * y.sum(),
    ],
)
def test_other_losses_and_outputs_that_follow_their_targets(loss: Callable[[Tensor], Tensor]) -> None:
    scatter, offset = told(3 * normal(64), loss)
    assert scatter == 0
    assert offset < 0.1


def test_a_distance_like_that_of_a_cross_entropy_is_not_far() -> None:
    assert told(normal(64), lambda y: F.mse_loss(y, FAR / 2 + 0.1 * y.detach()))[1] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    outputs, targets = 3 * normal(512), normal(512, seed=1)
    expected = told(outputs, lambda y: F.mse_loss(y, targets))
    assert told(outputs.to(dtype), lambda y: F.mse_loss(y, targets.to(dtype))) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_tells_nothing(value: float) -> None:
    outputs = normal(64)
    outputs[3] = value
    assert told(outputs, lambda y: F.mse_loss(y, 30 + normal(64, seed=1))) == (0, 0)


@pytest.mark.parametrize("shape", [(0,), (FEW - 1, 100)])
def test_few_examples_tell_nothing(shape: tuple[int, ...]) -> None:
    assert all(map(math.isnan, told(normal(*shape), lambda y: 30 * y.square().mean())))
