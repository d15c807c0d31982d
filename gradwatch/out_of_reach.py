"""How much of what a loss asks of a model's outputs lies beyond what the activation behind its last layer can give."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradwatch.graph_nodes import PRESERVING, base_name
from gradwatch.linear_range import SIGMOID

NODES = 8
"""Of the autograd graph, how many that only reshape may lie behind the activation."""

SPREAD = 0.05
"""Of the gradients that a sigmoid holds back in an example, relative to their mean: of a cross entropy of probabilities
and of an overlap they have one size there, whatever was learned."""

_REACHES = {"Relu": (0.0, math.inf), "Sigmoid": SIGMOID, "Softmax": SIGMOID}
"""Not of a tanh: what a generator draws and an actor does lies at its bounds for good reasons."""


def reach(output: Tensor) -> tuple[float, float] | None:
    """Between which numbers the outputs lie that the activation which made them can still move; None of other outputs.

    >>> x = torch.ones(4, 1, requires_grad=True)
    >>> reach(torch.relu(x).squeeze(1)), reach(2 * torch.relu(x))
    ((0.0, inf), None)
    """
    node = output.grad_fn
    for _ in range(NODES):
        if node is None:
            return None
        name = base_name(node.name())
        if name not in PRESERVING:
            return _REACHES.get(name)
        node = node.next_functions[0][0]
    return None


@torch.no_grad()
def out_of_reach(output: Tensor, gradient: Tensor, limits: tuple[float, float]) -> Tensor:
    """0-dim, share of the squared gradient that asks outputs beyond ``limits`` to go further still.

    Which may be as it should be where a sigmoid or a softmax gives probabilities, so that NaN is told where what it
    holds back has one size within each example. Nothing waits for the device.

    Args:
        output: [N, ...] of the activation.
        gradient: of the loss with respect to it.
        limits: as of :func:`reach`.

    >>> out_of_reach(torch.tensor([0.0, 2.0, 0.0]), torch.tensor([2.0, 1.0, -2.0]), (0.0, math.inf))  # of a ReLU
    tensor(0.4444)
    """
    low, high = limits
    held = ((output <= low) & (gradient > 0)) | ((output >= high) & (gradient < 0))
    size = (gradient / gradient.abs().amax()).float()
    share = torch.where(held, size, 0.0).square().sum() / size.square().sum()
    if high == math.inf:
        return share
    rows = (1, -1) if size[:1].numel() == 1 else (len(size), -1)
    held, size = held.reshape(rows), size.abs().reshape(rows)
    number = held.sum(1, keepdim=True)
    mean = torch.where(held, size, 0.0).sum(1, keepdim=True) / number.clamp(min=1)
    scatter = torch.where(held, size - mean, 0.0).square().sum() / number.sum()
    of_one_size = scatter.sqrt() <= SPREAD * (mean * number).sum() / number.sum()
    return torch.where(of_one_size, torch.nan, share)
