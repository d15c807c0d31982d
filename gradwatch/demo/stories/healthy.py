"""Healthy: two networks with nothing wrong, of which gradwatch has nothing to say."""

from __future__ import annotations

import torch
from torch import nn

from gradwatch.demo.networks import RowTransformer, normalised_mlp
from gradwatch.demo.stage import Stage
from gradwatch.demo.training import Run


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def healthy(stage: Stage) -> list[Run]:
    """No alert is as much a finding as one."""
    stage.console.print("A small network with LayerNorm and a small transformer, Adam with learning rate 0.001.\n")
    return [stage.run("layernorm mlp", normalised_mlp, adam)[0], stage.run("transformer", RowTransformer, adam)[0]]
