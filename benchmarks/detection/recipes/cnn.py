"""A convolutional network on the digits as images of 8 x 8 pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import Data, packaged
from benchmarks.detection.recipes.fitting import Training, fit
from benchmarks.detection.recipes.initialisation import initialise
from benchmarks.detection.recipes.layers import activation as activation_named
from benchmarks.detection.recipes.layers import norm as norm_named
from benchmarks.detection.task import Task


def cnn(
    seed: int,
    *,
    raw: bool = False,
    input_scale: float = 1.0,
    depth: int = 4,
    channels: int = 8,
    activation: str = "relu",
    init: str = "he",
    gain: float = 1.0,
    bias: float = 0.0,
    norm: str | None = None,
    residual: bool = False,
    **training: Any,
) -> Task:
    """``depth`` convolutions of 3 x 3, the mean over 4 x 4 pixels each, and one linear layer.

    Args:
        seed: of weights and batches.
        raw: ink from 0 to 16 in place of standardised pixels.
        input_scale: factor of every pixel.
        depth: convolutions.
        channels: of each.
        activation: after each convolution.
        init: scheme of all weights.
        gain: factor of the scheme's standard deviation, in the convolutions.
        bias: value of the convolutions' biases at the start.
        norm: before each activation.
        residual: add each convolution but the first to its input, divided by sqrt(depth).
        training: see ``Training``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits", raw).scaled(input_scale)
    images = Data(digits.x.view(-1, 1, 8, 8), digits.y, digits.outputs)
    model = Convolutional(depth, channels, images.outputs, activation, norm, residual)
    for layer in model.hidden:
        initialise(layer.conv.weight, init, gain)
        nn.init.constant_(layer.conv.bias, bias)
    initialise(model.head.weight, init)
    nn.init.zeros_(model.head.bias)
    return fit(model, images, seed, Training(**training))


class Convolution(nn.Module):
    """One layer of it: convolution, norm, activation; ``branch`` above zero is its share when added to the input."""

    def __init__(self, inputs: int, channels: int, activation: str, norm: str | None, branch: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.norm = norm_named(norm, channels, images=True)
        self.activation = activation_named(activation)
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.activation(self.norm(self.conv(x)))
        return x + self.branch * h if self.branch else h


class Convolutional(nn.Module):
    """Convolutions ``hidden.0``, ``hidden.1``, ... and ``head``."""

    def __init__(
        self, depth: int, channels: int, outputs: int, activation: str, norm: str | None, residual: bool
    ) -> None:
        super().__init__()
        branch = depth**-0.5 if residual else 0.0
        self.hidden = nn.Sequential(
            *(Convolution(channels if i else 1, channels, activation, norm, branch if i else 0.0) for i in range(depth))
        )
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Linear(4 * channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.pool(self.hidden(x)).flatten(1))
        return outputs
