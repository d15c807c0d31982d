"""A small recipe for the tests: a perceptron that tells two clouds of points apart."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.task import Program, Task

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


def perceptron(
    seed: int, *, depth: int = 10, activation: str = "relu", lr: float = 0.02, steps: int = 60, batch: int = 16
) -> Task:
    """``depth`` hidden layers of 16, He initialisation, SGD with momentum; the metric is the accuracy."""
    torch.manual_seed(seed)
    widths = [4] + [16] * depth
    hidden = [m for pair in pairwise(widths) for m in (nn.Linear(*pair), ACTIVATIONS[activation]())]
    model = nn.Sequential(*hidden, nn.Linear(16, 2))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(128) % 2
    x = torch.randn(128, 4, generator=source) + (4.0 * y - 2.0)[:, None]
    order = torch.randint(0, 128, (steps, batch), generator=source)

    def loss(step: int) -> Tensor:
        return F.cross_entropy(model(x[order[step]]), y[order[step]])

    @torch.no_grad()
    def metric() -> float:
        return (model(x).argmax(1) == y).float().mean().item()

    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Task(model, optimizer, loss, metric, trivial=0.5, steps=steps)


SIGMOID = Program(
    "vanishing-sigmoid/tiny",
    "vanishing-sigmoid",
    perceptron,
    settings={"activation": "sigmoid"},
    twin={"activation": "relu"},
    remedies={"activation": {"activation": "relu"}, "lr": {"lr": 0.05}},
    symptom="vanishing",
    severity="dead",
)
RELU = Program("healthy/tiny", "healthy", perceptron, settings={"activation": "relu"})
