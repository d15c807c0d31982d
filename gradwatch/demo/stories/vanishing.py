"""Vanishing: ten layers of sigmoids, and the same ten layers with ReLU and He's initialisation."""

from __future__ import annotations

import torch
from torch import nn

from gradwatch.demo.networks import he_initialised, mlp
from gradwatch.demo.stage import Stage
from gradwatch.demo.training import Run

DEPTH = 10


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def vanishing(stage: Stage) -> list[Run]:
    """Only the activation and the initialisation differ; data, batches, optimizer and depth are the same."""
    stage.console.print(
        f"Two networks of {DEPTH} hidden layers learn handwritten digits, SGD with learning rate 0.1.\n"
    )
    sigmoid, _ = stage.run("sigmoid", lambda: mlp(DEPTH, nn.Sigmoid), sgd)
    relu, _ = stage.run("relu he", lambda: he_initialised(mlp(DEPTH, nn.ReLU)), sgd)
    return [sigmoid, relu]
