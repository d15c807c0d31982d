"""Task, one training run ready to start, and Program, one row of the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

HEALTHY = "healthy"
"""The family of the programs that no detector may flag."""

CAUSES = (
    "activation",
    "init_scale",
    "residual",
    "norm",
    "lr",
    "clipping",
    "data_scaling",
    "precision",
    "width",
    "architecture",
    "warmup",
    "eps",
)
SYMPTOMS = (
    "vanishing",
    "vanishing_in_time",
    "exploding",
    "nonfinite",
    "dead",
    "saturated",
    "unstable",
    "overflow",
    "underflow",
)


@dataclass
class Task:
    """One training run, ready to start: everything is seeded and built.

    Args:
        model: holds every parameter that is trained.
        optimizer: what steps them.
        loss: step -> loss of that step's batch, forward included; sets nothing. With ``accumulate`` of k it is called
            k times per step, with ``k * step + i``, and divided by k.
        metric: higher is better, on the training set or a fixed part of it; without gradients, in eval mode where that
            matters, and back in train mode afterwards.
        trivial: what the trivial predictor (class prior, mean, unigram) gets in that metric.
        steps: optimizer steps of the run.
        before_step: the user's own clipping and the like, between backward and ``optimizer.step()``.
        scheduler: stepped once after each step.
        scaler: on the CPU, ``torch.amp.GradScaler("cpu")``; gradients are unscaled before ``before_step``.
        accumulate: backward passes per step.
        train_step: for loops of another kind (two losses, local losses): does one whole step in place of all of the
            above but the scheduler, and returns its loss. Its second argument is to be called once, when the
            gradients of all parameters are complete, before clipping and the last ``optimizer.step()``.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[int], Tensor]
    metric: Callable[[], float]
    trivial: float
    steps: int
    before_step: Callable[[int], None] | None = None
    scheduler: Any = None
    scaler: torch.amp.GradScaler | None = None
    accumulate: int = 1
    train_step: Callable[[int, Callable[[], None]], float] | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """One row of the benchmark: a recipe, its settings, and for a faulty one what theory says of it.

    ``twin`` and ``remedies`` hold only what differs from ``settings``; they are laid over them.

    Args:
        name: unique, as ``"vanishing-sigmoid/mlp-10"``.
        family: one of the families of faults, or ``"healthy"``.
        recipe: ``recipe(seed=..., **settings) -> Task``.
        settings: the run as it is judged.
        twin: faulty: what makes it its healthy base, whose outcome is the reference. Healthy: nothing.
        remedies: cause -> what changes this single factor. The seeded factor is always among them.
        symptom: what theory predicts, one of ``SYMPTOMS``; "" for a healthy program.
        layers: pattern of the layers that theory says are hit, as ``"net.[0-9].*"``; "" where unknown.
        source: the paper or equation that predicts it.
        severity: "dead" or "degraded" as designed, "" where it was drawn; the measured labels decide.

    Raises:
        ValueError: for a cause or symptom that is not known.
    """

    name: str
    family: str
    recipe: Callable[..., Task]
    settings: Mapping[str, Any]
    twin: Mapping[str, Any] = field(default_factory=dict)
    remedies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    symptom: str = ""
    layers: str = ""
    source: str = ""
    severity: str = ""

    def __post_init__(self) -> None:
        unknown = set(self.remedies) - set(CAUSES)
        if unknown:
            raise ValueError(f"{self.name}: unknown causes {sorted(unknown)}, they must be among {CAUSES}")
        if self.symptom and self.symptom not in SYMPTOMS:
            raise ValueError(f"{self.name}: unknown symptom {self.symptom!r}, it must be among {SYMPTOMS}")

    @property
    def is_healthy(self) -> bool:
        """Whether it was designed to be healthy."""
        return self.family == HEALTHY

    def build(self, seed: int, changes: Mapping[str, Any] | None = None) -> Task:
        """The run with ``changes`` (none, ``twin``, or one of ``remedies``) laid over its settings."""
        return self.recipe(seed=seed, **{**self.settings, **(changes or {})})
