"""Nodes of a graph whose classes are known for few: graph convolutions and graph attention."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.task import Task

NODES, CLASSES, FEATURES = 200, 4, 60


@cache
def citations() -> tuple[Tensor, Tensor, Tensor]:
    """Adjacency bool [N, N] with self loops, words float32 [N, FEATURES], most of them 0, and classes int64 [N]."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(NODES) % CLASSES
    alike = classes[:, None] == classes
    linked = torch.rand(NODES, NODES, generator=generator) < torch.where(alike, 0.08, 0.005)
    topic = torch.arange(FEATURES) % CLASSES == classes[:, None]
    words = torch.rand(NODES, FEATURES, generator=generator) < torch.where(topic, 0.12, 0.04)
    return linked | linked.T | torch.eye(NODES, dtype=torch.bool), words.float(), classes


def graph(seed: int, *, attention: bool = False, width: int = 16, **loop: Any) -> Task:
    """Two layers, trained on all nodes' words and on every fourth node's class; the metric is its accuracy.

    Args:
        seed: of weights.
        attention: GAT (Velickovic et al., 2018) in place of GCN (Kipf and Welling, 2017).
        width: of the hidden layer.
        loop: see ``Loop``; every step is the whole graph.
    """
    torch.manual_seed(seed)
    linked, words, classes = citations()
    known = torch.arange(NODES) // CLASSES % 4 == 0
    model = Graph(width, linked, attention)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(model(words)[known], classes[known])

    def metric() -> float:
        return (model(words)[known].argmax(1) == classes[known]).double().mean().item()

    settings = Loop(**{"batch": 1, **loop})
    return run(model, seed, settings, loss, metric, examples=NODES, trivial=1 / CLASSES)


class Graph(nn.Module):
    """Two layers with dropout before each."""

    def __init__(self, width: int, linked: Tensor, attention: bool) -> None:
        super().__init__()
        kind = GraphAttention if attention else GraphConvolution
        self.first, self.second = kind(FEATURES, width, linked), kind(width, CLASSES, linked)
        self.activation, self.dropout = nn.ReLU(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(self.activation(self.first(self.dropout(x)))))


class GraphConvolution(nn.Module):
    """Means over the neighbours, each counted by the root of its degree."""

    def __init__(self, inputs: int, outputs: int, linked: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        degree = linked.sum(1)
        self.register_buffer("share", linked / (degree[:, None] * degree).sqrt(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.share @ self.linear(x)


class GraphAttention(nn.Module):
    """Means over the neighbours, weighed by a softmax."""

    def __init__(self, inputs: int, outputs: int, linked: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.here, self.there = nn.Linear(outputs, 1, bias=False), nn.Linear(outputs, 1)
        self.register_buffer("linked", linked, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        scores = F.leaky_relu(self.here(h) + self.there(h).T, 0.2)
        return scores.masked_fill(~self.linked, -torch.inf).softmax(1) @ h
