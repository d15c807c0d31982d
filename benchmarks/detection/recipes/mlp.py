"""A multi-layer perceptron: the base of most programs."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.detection.data import Data, blobs, circles, packaged
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.recipes.stack import perceptron
from benchmarks.detection.task import Task


def mlp(
    seed: int,
    *,
    data: str = "digits",
    raw: bool = False,
    input_scale: float = 1.0,
    feature_scale: float = 1.0,
    target_scale: float = 1.0,
    depth: int = 4,
    width: int = 64,
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
    """``depth`` hidden layers and one of outputs.

    Args:
        seed: of weights and batches.
        data: of scikit-learn, or ``"blobs"``, or ``"circles"``.
        raw: leave the data in the units in which they were measured.
        input_scale: factor of every input.
        feature_scale: factor of the first feature.
        target_scale: factor of the values to be learned.
        depth: hidden layers.
        width: of each.
        activation: after each hidden layer.
        init: scheme of all weights.
        gain: factor of the scheme's standard deviation, in the hidden layers.
        bias: value of the hidden layers' biases at the start.
        norm: before each activation.
        residual: add each hidden layer but the first to its input, divided by sqrt(depth) (Hayou et al. 2021).
        optimizer: see ``Loop``.
        lr: step size.
        loop: the rest, see ``Loop``.
    """
    torch.manual_seed(seed)
    examples = tabular(data, raw).scaled(input_scale, feature_scale, target_scale)
    model = perceptron(examples.x.shape[1], depth, width, examples.outputs, activation, norm, residual)
    model.initialise(init, gain, bias)
    return supervised(model, examples, seed, optimizer=optimizer, lr=lr, **loop)


def tabular(name: str, raw: bool) -> Data:
    generated = {"blobs": blobs, "circles": circles}
    return generated[name]() if name in generated else packaged(name, raw)
