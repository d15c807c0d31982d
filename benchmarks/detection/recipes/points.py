"""Eight Gaussians in a ring, in two dimensions: what generative models are shown first."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

MODES, RADIUS, SPREAD = 8, 1.4, 0.15


@cache
def ring(examples: int = 512) -> Tensor:
    """float32 [examples, 2], of variance 1 in each direction up to chance."""
    generator = torch.Generator().manual_seed(0)
    mode = torch.randint(MODES, (examples,), generator=generator)
    return _centres()[mode] + SPREAD * torch.randn(examples, 2, generator=generator)


def ring_log_density(x: Tensor) -> Tensor:
    """The true log density at each point."""
    squares = (x[:, None] - _centres()).square().sum(-1)
    return (-squares / (2 * SPREAD**2)).logsumexp(1) - math.log(MODES * 2 * math.pi * SPREAD**2)


def gaussian_log_density(x: Tensor) -> Tensor:
    """That of the single Gaussian with the points' own mean and covariance."""
    return torch.distributions.MultivariateNormal(x.mean(0), x.T.cov()).log_prob(x)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """0 where both samples are from one distribution (Szekely and Rizzo, 2013)."""
    return (2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()).item()


def likeness(x: Tensor, y: Tensor) -> float:
    """1 - the energy distance of ``x`` from ``y``, as a share of that of y's mean: 1 for a copy, 0 for the mean."""
    return 1 - energy_distance(x, y) / energy_distance(y.mean(0, keepdim=True), y)


def _centres() -> Tensor:
    angle = 2 * math.pi * torch.arange(MODES) / MODES
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
