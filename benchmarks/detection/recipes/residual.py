"""Deep residual perceptrons whose branches start at zero, almost at zero, or behind a gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.task import Task


def residual(seed: int, *, branch: str = "rezero", depth: int = 24, width: int = 48, **loop: Any) -> Task:
    """``depth`` blocks between two linear layers, on the digits.

    Args:
        seed: of weights and batches.
        branch: one of ``BRANCHES``.
        depth: blocks.
        width: of each.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits")
    model = nn.Sequential(nn.Linear(digits.x.shape[1], width))
    model.extend(BRANCHES[branch](width) for _ in range(depth))
    model.append(nn.Linear(width, digits.outputs))
    return supervised(model, digits, seed, **loop)


class Scaled(nn.Module):
    """x + scale * branch(x), with a learned scale: one number, or one per feature."""

    def __init__(self, branch: nn.Module, scale: Tensor, drop: float = 0.0) -> None:
        super().__init__()
        self.branch, self.scale, self.drop = branch, nn.Parameter(scale), drop

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.drop and torch.rand(()) < self.drop:
            return x
        return x + self.scale * self.branch(x)


class Added(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Highway(nn.Module):
    """x + gate(x) * (branch(x) - x), the gate almost shut at first (Srivastava et al., 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.gate = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        nn.init.constant_(self.gate[0].bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate(x) * (self.branch(x) - x)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _two_layers(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


def _zero_last(width: int) -> nn.Module:
    return Added(nn.Sequential(nn.Linear(width, width), nn.ReLU(), _zeroed(nn.Linear(width, width))))


BRANCHES: Mapping[str, Any] = {
    # Bachlechner et al., 2020
    "rezero": lambda width: Scaled(nn.Sequential(nn.Linear(width, width), nn.ReLU()), torch.zeros(())),
    # De and Smith, 2020, with two layers as in a ResNet
    "skip_init": lambda width: Scaled(_two_layers(width), torch.zeros(())),
    # Touvron et al., 2021; 1e-6 is what ConvNeXt takes
    "layer_scale": lambda width: Scaled(_two_layers(width), torch.full((width,), 1e-6)),
    # Zhang et al., 2019 (Fixup): the last layer of each branch is zero
    "zero_last": _zero_last,
    "pre_norm": lambda width: Added(_two_layers(width)),
    # Huang et al., 2016
    "stochastic_depth": lambda width: Scaled(_two_layers(width), torch.ones(width), drop=0.2),
    "highway": Highway,
}
