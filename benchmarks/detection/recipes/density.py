"""Densities of points: a normalising flow, and a diffusion model."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.recipes.losses import r_squared
from benchmarks.detection.recipes.points import gaussian_log_density, ring, ring_log_density
from benchmarks.detection.task import Task

LEVELS = 50


def flow(seed: int, *, depth: int = 6, width: int = 32, **loop: Any) -> Task:
    """Affine coupling layers that start as the identity (RealNVP, Dinh et al., 2017).

    The metric is the log likelihood, 0 for the single Gaussian and 1 for the true density.

    Args:
        seed: of weights and batches.
        depth: coupling layers.
        width: of their hidden layers.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    x = ring()
    model = nn.Sequential(*(Coupling(i % 2, width) for i in range(depth)))

    def log_density(points: Tensor) -> Tensor:
        log_volume = torch.zeros(len(points))
        for layer in model:
            points, log_scale = layer(points)
            log_volume = log_volume + log_scale
        return log_volume - 0.5 * points.square().sum(1) - math.log(2 * math.pi)

    def metric() -> float:
        low, high = gaussian_log_density(x).mean(), ring_log_density(x).mean()
        return ((log_density(x).mean() - low) / (high - low)).item()

    return run(model, seed, Loop(**loop), lambda rows: -log_density(x[rows]).mean(), metric, examples=len(x))


def diffusion(seed: int, *, width: int = 64, **loop: Any) -> Task:
    """Predict the noise that was mixed in (DDPM, Ho et al., 2020); the metric is R^2 of it, 0 for the mean
    and 0.6 for the best possible answer.

    Args:
        seed: of weights, batches and noise.
        width: of the hidden layers.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    x = ring()
    level = torch.arange(1, LEVELS + 1) / LEVELS
    kept = (0.5 * math.pi * level).cos().square()
    embed = torch.cat([(level[:, None] * 2.0**i * math.pi).sin() for i in range(6)], dim=1)
    model = nn.Sequential(nn.Linear(2 + 6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def predicted(points: Tensor, at: Tensor, noise: Tensor) -> Tensor:
        share = kept[at, None]
        return model(torch.cat([share.sqrt() * points + (1 - share).sqrt() * noise, embed[at]], dim=1))

    def loss(rows: Tensor) -> Tensor:
        at, noise = torch.randint(LEVELS, (len(rows),)), torch.randn(len(rows), 2)
        return F.mse_loss(predicted(x[rows], at, noise), noise)

    generator = torch.Generator().manual_seed(0)
    fixed_at = torch.randint(LEVELS, (len(x),), generator=generator)
    fixed_noise = torch.randn(x.shape, generator=generator)

    def metric() -> float:
        return r_squared(predicted(x, fixed_at, fixed_noise), fixed_noise)

    return run(model, seed, Loop(**loop), loss, metric, examples=len(x))


class Coupling(nn.Module):
    """One coordinate is scaled and shifted by what the other says; gives the points and the log of the scale."""

    def __init__(self, kept: int, width: int) -> None:
        super().__init__()
        self.kept = kept
        self.net = nn.Sequential(
            nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x[:, self.kept], x[:, 1 - self.kept]
        log_scale, shift = self.net(kept[:, None]).unbind(1)
        log_scale = log_scale.tanh()
        moved = moved * log_scale.exp() + shift
        both = (kept, moved) if self.kept == 0 else (moved, kept)
        return torch.stack(both, dim=1), log_scale
