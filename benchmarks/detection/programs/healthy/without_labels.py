"""Vectors learned from pairs and views, and layers that learn one by one."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.contrastive import momentum_target, pairs, views
from benchmarks.detection.recipes.forward_forward import forward_forward

row = group("without-labels")

PROGRAMS = (
    row("simclr", views, "Chen 2020; limit: 0.86 in five times the steps", temperature=0.1, lr=3e-3),
    row("pairs", pairs, "half the pairs are beyond the margin and push nothing (Hadsell 2006)", lr=5e-3, batch=32,
        steps=400),
    row("triplets", pairs, "most triplets push nothing in the end (Schroff 2015)", triplets=True, lr=3e-3, batch=32),
    row("byol", momentum_target, "a target without gradients (Grill 2020)", lr=3e-3),
    row("forward-forward", forward_forward, "each layer has a loss of its own (Hinton 2022)", lr=1e-2),
)  # fmt: skip
