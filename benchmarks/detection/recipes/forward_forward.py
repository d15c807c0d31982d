"""Layers that learn one by one, each from a loss of its own (Hinton, 2022)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.task import Task

SHOWN = 256


def forward_forward(seed: int, *, width: int = 128, depth: int = 2, threshold: float = 2.0, **loop: Any) -> Task:
    """Squares of the activations are large for a digit with its own label, small for one with another label.

    The metric is the accuracy of the label for which they are largest.

    Args:
        seed: of weights, batches and wrong labels.
        width: of the layers.
        depth: layers.
        threshold: between large and small.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits")
    model = nn.ModuleList(nn.Sequential(nn.Linear(64 + 10 if not i else width, width), nn.ReLU()) for i in range(depth))

    def goodness(x: Tensor, labels: Tensor) -> list[Tensor]:
        h, found = torch.cat([x, 4 * F.one_hot(labels, 10)], dim=1), []
        for layer in model:
            h = layer(F.normalize(h.detach()) * h.shape[1] ** 0.5)
            found.append(h.square().mean(1))
        return found

    def loss(rows: Tensor) -> Tensor:
        x, y = digits.x[rows], digits.y[rows]
        wrong = (y + torch.randint(1, 10, y.shape)) % 10
        losses = [
            F.softplus(threshold - right).mean() + F.softplus(other - threshold).mean()
            for right, other in zip(goodness(x, y), goodness(x, wrong))
        ]
        return torch.stack(losses).sum()

    def metric() -> float:
        x = digits.x[:SHOWN]
        scores = [torch.stack(goodness(x, torch.full((SHOWN,), c))).sum(0) for c in range(10)]
        return (torch.stack(scores, dim=1).argmax(1) == digits.y[:SHOWN]).double().mean().item()

    return run(model, seed, Loop(**loop), loss, metric, examples=len(digits.x), trivial=digits.trivial)
