"""A convolutional network on the digits as images of 8 x 8 pixels."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.detection.data import Data, packaged
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.recipes.stack import convolutions
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
    optimizer: str = "sgd",
    lr: float = 0.1,
    **loop: Any,
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
        optimizer: see ``Loop``.
        lr: step size.
        loop: the rest, see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits", raw).scaled(input_scale)
    images = Data(digits.x.view(-1, 1, 8, 8), digits.y, digits.outputs)
    model = convolutions(depth, channels, images.outputs, activation, norm, residual)
    model.initialise(init, gain, bias)
    return supervised(model, images, seed, optimizer=optimizer, lr=lr, **loop)
