"""Hidden layers of one kind, one after the other, and a linear layer: perceptrons and convolutional networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from benchmarks.detection.recipes.initialisation import initialise
from benchmarks.detection.recipes.layers import activation as activation_named
from benchmarks.detection.recipes.layers import norm as norm_named


class Hidden(nn.Module):
    """One layer of it: layer, norm, activation; ``branch`` above zero is its share when added to the input."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, activation: str, norm: str | None, branch: float = 0.0) -> None:
        super().__init__()
        self.layer = layer
        self.norm = norm_named(norm, layer.weight.shape[0], images=isinstance(layer, nn.Conv2d))
        self.activation = activation_named(activation)
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.activation(self.norm(self.layer(x)))
        return x + self.branch * h if self.branch else h


class Stack(nn.Module):
    """Layers ``hidden.0.layer``, ``hidden.1.layer``, ... and ``head``.

    Args:
        layers: linear or convolutions, the first to the last.
        head: the layer of outputs.
        activation: after each hidden layer.
        norm: before each activation.
        residual: add each layer but the first to its input, divided by sqrt(depth) (Hayou et al. 2021).
        pool: between the last hidden layer and the head.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear | nn.Conv2d],
        head: nn.Linear,
        activation: str,
        norm: str | None = None,
        residual: bool = False,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        branch = len(layers) ** -0.5 if residual else 0.0
        self.hidden = nn.Sequential(
            *(Hidden(layer, activation, norm, branch if i else 0.0) for i, layer in enumerate(layers))
        )
        self.pool = pool or nn.Identity()
        self.head = head

    def initialise(self, init: str, gain: float, bias: float) -> Stack:
        """Weights by the scheme ``init``, the hidden ones times ``gain``; biases ``bias``, and 0 in the head."""
        for block in self.hidden:
            initialise(block.layer.weight, init, gain)
            nn.init.constant_(block.layer.bias, bias)
        initialise(self.head.weight, init)
        nn.init.zeros_(self.head.bias)
        return self

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.pool(self.hidden(x)).flatten(1))
        return outputs


def perceptron(
    inputs: int,
    depth: int,
    width: int,
    outputs: int,
    activation: str = "relu",
    norm: str | None = None,
    residual: bool = False,
) -> Stack:
    """``depth`` linear layers of ``width`` and one of outputs."""
    sizes = [inputs, *depth * [width]]
    layers = [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]
    return Stack(layers, nn.Linear(sizes[-1], outputs), activation, norm, residual)


def convolutions(
    depth: int, channels: int, outputs: int, activation: str, norm: str | None = None, residual: bool = False
) -> Stack:
    """``depth`` convolutions of 3 x 3 of images of 8 x 8, the mean over 4 x 4 pixels each, one layer of outputs."""
    sizes = [1, *depth * [channels]]
    layers = [nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(sizes)]
    return Stack(layers, nn.Linear(4 * channels, outputs), activation, norm, residual, pool=nn.AvgPool2d(4))
