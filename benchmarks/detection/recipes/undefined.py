"""Operations that are undefined somewhere, in front of a perceptron, and the small number that keeps them defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import pixels
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.recipes.stack import perceptron
from benchmarks.detection.task import Task


def undefined(
    seed: int,
    *,
    operation: str,
    eps: float = 1e-3,
    depth: int = 2,
    width: int = 64,
    optimizer: str = "sgd",
    lr: float = 0.1,
    **loop: Any,
) -> Task:
    """Pixels with a learned weight each, then ``operation``, then a perceptron.

    One image among the digits is blank, so that its row is zero whatever the weights are.

    Args:
        seed: of weights and batches.
        operation: one of ``OPERATIONS``.
        eps: what keeps it defined; 0 is the fault.
        depth: hidden layers.
        width: of each.
        optimizer: see ``Loop``.
        lr: step size.
        loop: the rest, see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = pixels()
    head = perceptron(digits.x.shape[1], depth, width, digits.outputs)
    model = nn.Sequential()
    model.add_module("weigh", Weigh(digits.x.shape[1]))
    model.add_module("operation", Operation(operation, eps))
    model.add_module("head", head)
    return supervised(model, digits, seed, optimizer=optimizer, lr=lr, **loop)


class Weigh(nn.Module):
    """A learned weight for each feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Operation(nn.Module):
    """One of ``OPERATIONS``, as a module."""

    def __init__(self, name: str, eps: float) -> None:
        super().__init__()
        self.name, self.eps = name, eps

    def forward(self, x: Tensor) -> Tensor:
        return OPERATIONS[self.name](x, self.eps)


def log(x: Tensor, eps: float) -> Tensor:
    """Forward: log 0."""
    return (x.abs() + eps).log()


def share(x: Tensor, eps: float) -> Tensor:
    """Forward: 0/0 in a row of zeros."""
    return 8 * x / (x.abs().sum(dim=1, keepdim=True) + eps)


def spread(x: Tensor, eps: float) -> Tensor:
    """Backward only: the derivative of a standard deviation of 0 is infinite, though its value is 0."""
    deviation = x - x.mean(dim=1, keepdim=True)
    return deviation / _root(deviation.square().mean(dim=1, keepdim=True), eps)


def length(x: Tensor, eps: float) -> Tensor:
    """Backward only: the derivative of a length of 0 is infinite, times 0 is NaN."""
    return 8 * x / _root(x.square().sum(dim=1, keepdim=True), eps)


def masked_root(x: Tensor, eps: float) -> Tensor:
    """Backward only: ``torch.where`` hides the root of 0 forward, and multiplies its infinite derivative by 0."""
    return torch.where(x > 0, (x + eps).sqrt(), 0.0)


def _root(squares: Tensor, eps: float) -> Tensor:
    """To divide by: safe both ways with eps within the root, only forward with it added outside."""
    return (squares + eps).sqrt() if eps else squares.sqrt() + 1e-3


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "log": log,
    "share": share,
    "spread": spread,
    "length": length,
    "masked_root": masked_root,
}
