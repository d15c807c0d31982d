"""Mixture of experts: each example goes through the one expert that the router prefers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.task import Task


def moe(seed: int, *, experts: int = 4, idle: int = 1, skipped: bool = True, top: int = 1, **loop: Any) -> Task:
    """A layer of experts between two linear layers, on the digits.

    Args:
        seed: of weights and batches.
        experts: how many.
        idle: of them are never preferred.
        skipped: an expert without examples is not called, and has no gradient; else one of zero.
        top: experts per example.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits")
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), Experts(48, experts, idle, skipped, top), nn.Linear(48, 10))
    return supervised(model, digits, seed, **loop)


class Experts(nn.Module):
    """x + the preferred experts' answers times their share (Shazeer et al., 2017; Fedus et al., 2022)."""

    def __init__(self, width: int, experts: int, idle: int, skipped: bool, top: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(experts)
        )
        self.skipped, self.top = skipped, top
        with torch.no_grad():
            self.router.bias[:idle] = -100.0

    def forward(self, x: Tensor) -> Tensor:
        share, chosen = self.router(x).softmax(1).topk(self.top, dim=1)
        mixed = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows, place = (chosen == i).nonzero(as_tuple=True)
            if len(rows) or not self.skipped:
                mixed = mixed.index_add(0, rows, share[rows, place, None] * expert(x[rows]))
        return x + mixed
