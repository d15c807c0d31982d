"""Generator and discriminator, trained against each other at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import Loop, batch_order, evaluated
from benchmarks.detection.recipes.points import likeness, ring
from benchmarks.detection.task import Task

NOISE = 16


def gan(
    seed: int,
    *,
    data: str = "ring",
    objective: str = "non_saturating",
    width: int = 64,
    generator_lr: float = 1.0,
    **loop: Any,
) -> Task:
    """Both sides step together; the metric is ``likeness`` of 512 generated examples to the real ones.

    Args:
        seed: of weights, batches and noise.
        data: ``"ring"``, with perceptrons, or ``"digits"``, with convolutions as in DCGAN (Radford et al., 2016),
            from PyTorch's initialisation: 300 steps are too few to grow from its standard deviation of 0.02.
        objective: one of ``OBJECTIVES``.
        width: of the hidden layers, or channels.
        generator_lr: factor of its learning rate (two time scales, Heusel et al., 2017).
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    real = ring() if data == "ring" else (packaged("digits", raw=True).x / 8 - 1).view(-1, 1, 8, 8)
    sides = _perceptrons(width) if data == "ring" else _convolutions(width)
    model = nn.ModuleDict({"generator": sides[0], "discriminator": sides[1]})
    generator, discriminator = sides
    settings = Loop(**loop)
    optimizer = settings.make_optimizer(
        [
            {"params": generator.parameters(), "lr": generator_lr * settings.lr},
            {"params": discriminator.parameters()},
        ]
    )
    order = batch_order(len(real), settings.batch, settings.steps, seed)
    fixed = torch.randn(512, NOISE, generator=torch.Generator().manual_seed(seed))
    losses = OBJECTIVES[objective]

    def train_step(step: int, gradients_ready: Callable[[], None]) -> float:
        batch = real[order[step]]
        fake = generator(torch.randn(len(batch), NOISE))
        of_discriminator, of_generator = losses(discriminator, batch, fake)
        optimizer.zero_grad()
        of_generator.backward(inputs=list(generator.parameters()), retain_graph=True)
        of_discriminator.backward(inputs=list(discriminator.parameters()))
        gradients_ready()
        optimizer.step()
        return of_discriminator.item() + of_generator.item()

    def metric() -> float:
        return likeness(generator(fixed).flatten(1), real[:512].flatten(1))

    return Task(
        model=model,
        optimizer=optimizer,
        loss=lambda step: torch.zeros(()),
        metric=evaluated(model, metric),
        trivial=0.0,
        steps=settings.steps,
        train_step=train_step,
    )


def non_saturating(discriminator: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Goodfellow et al., 2014."""
    judged, ones = discriminator(fake), torch.ones(len(real), 1)
    ours = F.binary_cross_entropy_with_logits(discriminator(real), ones)
    ours = ours + F.binary_cross_entropy_with_logits(discriminator(fake.detach()), 1 - ones)
    return ours, F.binary_cross_entropy_with_logits(judged, ones)


def hinge(discriminator: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Lim and Ye, 2017; nothing reaches the discriminator where it is sure."""
    ours = F.relu(1 - discriminator(real)).mean() + F.relu(1 + discriminator(fake.detach())).mean()
    return ours, -discriminator(fake).mean()


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Wasserstein, with the penalty of Gulrajani et al., 2017."""
    between = real.lerp(fake.detach(), torch.rand(len(real), 1)).requires_grad_()
    slope = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)[0]
    penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
    ours = discriminator(fake.detach()).mean() - discriminator(real).mean() + penalty
    return ours, -discriminator(fake).mean()


OBJECTIVES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "non_saturating": non_saturating,
    "hinge": hinge,
    "gradient_penalty": gradient_penalty,
}


def _perceptrons(width: int) -> tuple[nn.Module, nn.Module]:
    def side(inputs: int, outputs: int) -> nn.Module:
        hidden = [nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)]
        return nn.Sequential(*hidden, nn.Linear(width, outputs))

    return side(NOISE, 2), side(2, 1)


def _convolutions(width: int) -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(
        nn.Unflatten(1, (NOISE, 1, 1)),
        nn.ConvTranspose2d(NOISE, 2 * width, 2, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 2, bias=False),
        nn.Flatten(),
    )
    return generator, discriminator
