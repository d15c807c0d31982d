"""Vectors that are near for what belongs together: two views of one image, two images of one digit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.task import Task

SHOWN = 128
NOISE = 0.5


def views(seed: int, *, temperature: float = 0.2, width: int = 64, **loop: Any) -> Task:
    """Find an image's other noisy view among all images (SimCLR, Chen et al., 2020); no labels are used.

    The metric is 1 - cross entropy / log(choices) on fixed images and noise, 0 for the trivial answer.

    Args:
        seed: of weights, batches and noise.
        temperature: of the softmax.
        width: of the hidden layers.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    x = packaged("digits").x
    model = nn.Sequential(
        nn.Linear(64, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 16),
    )

    def cross_entropy(first: Tensor, second: Tensor) -> Tensor:
        similar = F.normalize(model(first)) @ F.normalize(model(second)).T / temperature
        wanted = torch.arange(len(first))
        return (F.cross_entropy(similar, wanted) + F.cross_entropy(similar.T, wanted)) / 2

    def loss(rows: Tensor) -> Tensor:
        return cross_entropy(_noisy(x[rows]), _noisy(x[rows]))

    generator = torch.Generator().manual_seed(seed)
    fixed = [x[:SHOWN] + NOISE * torch.randn(SHOWN, 64, generator=generator) for _ in range(2)]

    def metric() -> float:
        return 1 - cross_entropy(*fixed).item() / math.log(SHOWN)

    return run(model, seed, Loop(**loop), loss, metric, examples=len(x))


def pairs(seed: int, *, margin: float = 1.0, triplets: bool = False, width: int = 64, **loop: Any) -> Task:
    """Distances that tell whether two images are of one digit (Hadsell et al., 2006; Schroff et al., 2015).

    The metric is how often a digit is nearer to another of its class than to one of another class, by the margin;
    0 for constant vectors.

    Args:
        seed: of weights and batches.
        margin: beyond it nothing is pushed.
        triplets: compare three images at a time, in place of two.
        width: of the hidden layer.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits")
    rows_of = [(digits.y == c).nonzero()[:, 0] for c in range(10)]
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 16))

    def partners(rows: Tensor, draw: Callable[[int], int]) -> tuple[Tensor, Tensor]:
        """For each row another of its class, and one of another class."""
        same, other = [], []
        for c in digits.y[rows].tolist():
            d = (c + 1 + draw(9)) % 10
            same.append(rows_of[c][draw(len(rows_of[c]))])
            other.append(rows_of[d][draw(len(rows_of[d]))])
        return torch.stack(same), torch.stack(other)

    def distances(rows: Tensor, same: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        here = model(digits.x[rows])
        return F.pairwise_distance(here, model(digits.x[same])), F.pairwise_distance(here, model(digits.x[other]))

    def loss(rows: Tensor) -> Tensor:
        near, far = distances(rows, *partners(rows, lambda n: int(torch.randint(n, ()))))
        if triplets:
            return F.relu(near - far + margin).mean()
        return (near.square() + F.relu(margin - far).square()).mean() / 2

    generator = torch.Generator().manual_seed(seed)
    fixed = torch.arange(SHOWN)
    fixed_partners = partners(fixed, lambda n: int(torch.randint(n, (), generator=generator)))

    def metric() -> float:
        near, far = distances(fixed, *fixed_partners)
        return (far - near > margin / 2).double().mean().item()

    return run(model, seed, Loop(**loop), loss, metric, examples=len(digits.x))


def momentum_target(seed: int, *, decay: float = 0.98, width: int = 64, **loop: Any) -> Task:
    """Predict the vector that a slowly following copy gives another view (BYOL, Grill et al., 2020).

    The copy has no gradients. The metric is R^2-like: how much nearer the prediction is to the copy's vector of the
    same image than to those of others, 0 where it is as near to all.

    Args:
        seed: of weights, batches and noise.
        decay: of the copy's weights.
        width: of the hidden layers.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    x = packaged("digits").x

    def network() -> nn.Sequential:
        return nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 16))

    model = nn.ModuleDict({"online": network(), "target": network()})
    model["predictor"] = nn.Sequential(nn.Linear(16, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 16))
    model["target"].load_state_dict(model["online"].state_dict())
    model["target"].requires_grad_(False)

    def predicted_and_wanted(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        predicted = F.normalize(model["predictor"](model["online"](first)))
        return predicted, F.normalize(model["target"](second))

    def loss(rows: Tensor) -> Tensor:
        predicted, wanted = predicted_and_wanted(_noisy(x[rows]), _noisy(x[rows]))
        return 2 - 2 * (predicted * wanted).sum(1).mean()

    def follow(step: int) -> None:
        for slow, fast in zip(model["target"].parameters(), model["online"].parameters()):
            slow.data.lerp_(fast.data, 1 - decay)

    generator = torch.Generator().manual_seed(seed)
    fixed = [x[:SHOWN] + NOISE * torch.randn(SHOWN, 64, generator=generator) for _ in range(2)]

    def metric() -> float:
        predicted, wanted = predicted_and_wanted(*fixed)
        similar = predicted @ wanted.T
        others = (similar.sum() - similar.trace()) / (SHOWN * (SHOWN - 1))
        return ((similar.trace() / SHOWN - others) / (1 - others)).item()

    return run(model, seed, Loop(**loop), loss, metric, examples=len(x), after_step=follow)


def _noisy(x: Tensor) -> Tensor:
    return x + NOISE * torch.randn_like(x)
