"""Images from codes and codes from images: autoencoders, variational or not."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import MEASURED, Loop, run
from benchmarks.detection.recipes.losses import r_squared
from benchmarks.detection.task import Task


def autoencoder(
    seed: int,
    *,
    sizes: tuple[int, ...] = (48, 8),
    variational: bool = False,
    kl_weight: float = 1.0,
    noise: float = 0.0,
    sparsity: float = 0.0,
    summed: bool = False,
    **loop: Any,
) -> Task:
    """Squared error on the digits' standardised pixels; the metric is R^2, 0 for the mean image.

    Args:
        seed: of weights, batches and noise.
        sizes: hidden layers of the encoder, the code last; the decoder's are the same backwards.
        variational: the code is a Gaussian (Kingma and Welling, 2014).
        kl_weight: of its divergence from the prior (Higgins et al., 2017).
        noise: standard deviation of what is added to the input (Vincent et al., 2010).
        sparsity: weight of the code's activations, which then go through a ReLU.
        summed: over the batch, in place of the mean, as in pytorch/examples.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    x = packaged("digits").x
    model = Coder(x.shape[1], sizes, variational)
    if sparsity:
        model.encoder.append(nn.ReLU())

    def loss(rows: Tensor) -> Tensor:
        batch = x[rows]
        code = model.encoder(batch + noise * torch.randn_like(batch) if noise else batch)
        extra: Tensor | float = sparsity * code.sum(1).mean()
        if variational:
            mean, log_variance = code.chunk(2, dim=1)
            extra = kl_weight * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
            code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = 0.5 * (model.decoder(code) - batch).square().sum(1).mean() + extra
        return error * len(batch) if summed else error

    def metric() -> float:
        code = model.encoder(x[:MEASURED])
        return r_squared(model.decoder(code[:, : sizes[-1]]), x[:MEASURED])

    return run(model, seed, Loop(**loop), loss, metric, examples=len(x))


class Coder(nn.Module):
    """``encoder`` and ``decoder``."""

    def __init__(self, inputs: int, sizes: tuple[int, ...], variational: bool) -> None:
        super().__init__()
        code = sizes[-1]
        self.encoder = _perceptron((inputs, *sizes[:-1], 2 * code if variational else code))
        self.decoder = _perceptron((code, *sizes[-2::-1], inputs))


def _perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    layers = [module for i, o in pairwise(sizes) for module in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])
