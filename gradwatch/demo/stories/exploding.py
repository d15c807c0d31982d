"""Exploding: initial weights three times too large, and two ways out: clipping, or He's initialisation as it is."""

from __future__ import annotations

import torch
from torch import nn

import gradwatch as gw
from gradwatch.demo.networks import he_initialised, mlp
from gradwatch.demo.stage import Stage
from gradwatch.demo.training import Run

DEPTH, SCALE = 6, 3.0


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def network(scale: float) -> nn.Module:
    return he_initialised(mlp(DEPTH, nn.ReLU), scale)


def exploding(stage: Stage) -> list[Run]:
    """The three runs share data, batches, optimizer and architecture."""
    stage.console.print(
        f"Three ReLU networks of {DEPTH} hidden layers; two of them start from weights {SCALE:g} times He's.\n"
    )
    large, _ = stage.run("large weights", lambda: network(SCALE), momentum)
    clipped, _ = stage.run("clipped", lambda: network(SCALE), momentum, clip=gw.clipping.GlobalNorm(max_norm=1.0))
    proper, _ = stage.run("he", lambda: network(1.0), momentum)
    return [large, clipped, proper]
