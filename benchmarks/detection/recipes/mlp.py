"""A multi-layer perceptron: the base of most programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import Data, blobs, circles, packaged
from benchmarks.detection.recipes.fitting import Training, fit
from benchmarks.detection.recipes.initialisation import initialise
from benchmarks.detection.recipes.layers import activation as activation_named
from benchmarks.detection.recipes.layers import norm as norm_named
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
    **training: Any,
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
        training: see ``Training``.
    """
    torch.manual_seed(seed)
    examples = tabular(data, raw).scaled(input_scale, feature_scale, target_scale)
    model = Perceptron(examples.x.shape[1], depth, width, examples.outputs, activation, norm, residual)
    for layer in model.hidden:
        initialise(layer.linear.weight, init, gain)
        nn.init.constant_(layer.linear.bias, bias)
    initialise(model.head.weight, init)
    nn.init.zeros_(model.head.bias)
    return fit(model, examples, seed, Training(**training))


def tabular(name: str, raw: bool) -> Data:
    generated = {"blobs": blobs, "circles": circles}
    return generated[name]() if name in generated else packaged(name, raw)


class Hidden(nn.Module):
    """One layer of it: linear, norm, activation; ``branch`` above zero is its share when added to the input."""

    def __init__(self, inputs: int, width: int, activation: str, norm: str | None, branch: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.norm = norm_named(norm, width)
        self.activation = activation_named(activation)
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.activation(self.norm(self.linear(x)))
        return x + self.branch * h if self.branch else h


class Perceptron(nn.Module):
    """Hidden layers ``hidden.0``, ``hidden.1``, ... and ``head``."""

    def __init__(
        self, inputs: int, depth: int, width: int, outputs: int, activation: str, norm: str | None, residual: bool
    ) -> None:
        super().__init__()
        branch = depth**-0.5 if residual else 0.0
        self.hidden = nn.Sequential(
            *(Hidden(width if i else inputs, width, activation, norm, branch if i else 0.0) for i in range(depth))
        )
        self.head = nn.Linear(width if depth else inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.hidden(x))
        return outputs
