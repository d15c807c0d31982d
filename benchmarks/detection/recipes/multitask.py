"""One trunk and several heads: losses of unlike size, heads that are not used, a teacher's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import MEASURED, Loop, run
from benchmarks.detection.recipes.losses import accuracy
from benchmarks.detection.task import Task


def multitask(
    seed: int, *, weights: Mapping[str, float] | None = None, unused: bool = False, deep: bool = False, **loop: Any
) -> Task:
    """Which digit, whether it is odd, and how much ink; the metric is the accuracy of the first.

    Args:
        seed: of weights and batches.
        weights: of the losses of the heads ``digit``, ``odd`` and ``ink``; none has 0.
        unused: the model has one head more, which no loss sees.
        deep: the digit is asked for after every layer as well (Lee et al., 2015).
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits")
    ink = packaged("digits", raw=True).x.sum(1)
    answers = {"digit": digits.y, "odd": (digits.y % 2).float(), "ink": ink}
    model = Trunk(unused)
    weights = weights or {"digit": 1.0}

    def loss(rows: Tensor) -> Tensor:
        states = model.states(digits.x[rows])
        total = sum(
            (
                weight * HEADS[name](model.heads[name](states[-1]), answers[name][rows])
                for name, weight in weights.items()
            ),
            torch.zeros(()),
        )
        if deep:
            total = total + sum(F.cross_entropy(head(h), digits.y[rows]) for head, h in zip(model.early, states))
        return total

    def metric() -> float:
        return accuracy(model.heads["digit"](model.states(digits.x[:MEASURED])[-1]), digits.y[:MEASURED])

    used = ["layers", *(f"heads.{name}." for name in weights), *(["early"] if deep else []), "heads.unused"]
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith(tuple(used))
    return run(model, seed, Loop(**loop), loss, metric, examples=len(digits.x), trivial=digits.trivial)


class Trunk(nn.Module):
    """Three ``layers``, ``heads`` by name, and a head after each layer for deep supervision."""

    def __init__(self, unused: bool, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(64 if not i else width, width), nn.ReLU()) for i in range(3)
        )
        outputs = {"digit": 10, "odd": 1, "ink": 1, **({"unused": 10} if unused else {})}
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in outputs.items()})
        self.early = nn.ModuleList(nn.Linear(width, 10) for _ in self.layers)

    def states(self, x: Tensor) -> list[Tensor]:
        states = []
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return states


HEADS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "digit": F.cross_entropy,
    "odd": lambda outputs, y: F.binary_cross_entropy_with_logits(outputs[:, 0], y),
    "ink": lambda outputs, y: F.mse_loss(outputs[:, 0], y),  # in its own unit: some 100,000 at first
}


def distillation(seed: int, *, temperature: float = 4.0, width: int = 24, **loop: Any) -> Task:
    """A small perceptron learns the answers of a larger one (Hinton et al., 2015); the metric is its accuracy.

    Args:
        seed: of weights and batches; the teacher is the same for all.
        temperature: of both softmaxes.
        width: of the student.
        loop: see ``Loop``.
    """
    digits = packaged("digits")
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3, fused=True)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(teacher(digits.x), digits.y).backward()
        optimizer.step()
    teacher.requires_grad_(False)
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    model = nn.ModuleDict({"teacher": teacher, "student": student})

    def loss(rows: Tensor) -> Tensor:
        x = digits.x[rows]
        wanted = (teacher(x) / temperature).log_softmax(1)
        given = (student(x) / temperature).log_softmax(1)
        return temperature**2 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)

    def metric() -> float:
        return accuracy(student(digits.x[:MEASURED]), digits.y[:MEASURED])

    return run(model, seed, Loop(**loop), loss, metric, examples=len(digits.x), trivial=digits.trivial)
