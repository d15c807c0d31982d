"""How a model is trained on data, as settings: optimizer, precision, clipping, and the order of the batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import Data
from benchmarks.detection.recipes.losses import LOSSES, accuracy, r_squared
from benchmarks.detection.task import Task

MEASURED = 256
"""The metric is taken over so many examples at most: it is asked for some forty times in a run."""

SHOCK_STEPS = 3


@dataclass(frozen=True)
class Training:
    """Everything about a run but its model and its data.

    Args:
        optimizer: ``"sgd"``, ``"adam"`` or ``"adamw"``.
        lr: step size.
        momentum: of SGD.
        loss: a name in ``LOSSES``; by default cross entropy for classes, and squared error for values.
        loss_weight: a factor of the loss, as in a sum of several losses.
        clip: largest norm of all gradients together.
        warmup: steps in which the learning rate climbs to ``lr``.
        shock: a factor of the learning rate in the first ``SHOCK_STEPS`` steps.
        precision: ``"float32"``, ``"float16"`` (autocast; the weights stay in float32) or ``"float16_weights"``.
        loss_scale: a fixed factor of the loss, taken out of the gradients again before the step.
        scaler: arguments of a ``torch.amp.GradScaler``.
        steps: optimizer steps.
        batch: examples per step.
    """

    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    loss: str = ""
    loss_weight: float = 1.0
    clip: float | None = None
    warmup: int = 0
    shock: float = 1.0
    precision: str = "float32"
    loss_scale: float = 1.0
    scaler: Mapping[str, Any] | None = None
    steps: int = 300
    batch: int = 64


def fit(model: nn.Module, data: Data, seed: int, training: Training) -> Task:
    """The task of training ``model`` on ``data``; runs of one seed see the same batches in the same order."""
    optimizer = _optimizer(model, training)
    forward = _forward(model, training.precision)
    order = batch_order(len(data.x), training.batch, training.steps, seed)
    measured = data.first(MEASURED)
    criterion = LOSSES[training.loss or ("cross_entropy" if data.has_classes else "mse")]

    def loss(step: int) -> Tensor:
        rows = order[step]
        return criterion(forward(data.x[rows]), data.y[rows]) * training.loss_weight * training.loss_scale

    return Task(
        model=model,
        optimizer=optimizer,
        loss=loss,
        metric=_metric(model, forward, measured),
        trivial=measured.trivial,
        steps=training.steps,
        before_step=_before_step(model, training),
        scheduler=_scheduler(optimizer, training),
        scaler=None if training.scaler is None else torch.amp.GradScaler("cpu", **training.scaler),
    )


def batch_order(examples: int, batch: int, steps: int, seed: int) -> Tensor:
    """Rows of each step's batch, int64 [steps, batch]: one permutation of all examples after another."""
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-batch * steps // examples)
    rows = torch.cat([torch.randperm(examples, generator=generator) for _ in range(epochs)])
    return rows[: batch * steps].view(steps, batch)


def evaluated(model: nn.Module, metric: Callable[[], float]) -> Callable[[], float]:
    """``metric`` in eval mode and without gradients."""

    def measured() -> float:
        model.eval()
        with torch.no_grad():
            value = metric()
        model.train()
        return value

    return measured


def _optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    if training.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=training.lr, momentum=training.momentum)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[training.optimizer](model.parameters(), lr=training.lr)


def _scheduler(optimizer: torch.optim.Optimizer, training: Training) -> torch.optim.lr_scheduler.LambdaLR | None:
    if training.warmup:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / training.warmup))
    if training.shock != 1.0:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: training.shock if step < SHOCK_STEPS else 1.0)
    return None


def _forward(model: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    """The model's float32 outputs in the precision asked for."""
    if precision == "float32":
        return model
    if precision == "float16_weights":
        model.half()
        return lambda x: model(x.half()).float()

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            outputs: Tensor = model(x)
        return outputs.float()

    return autocast


def _metric(model: nn.Module, forward: Callable[[Tensor], Tensor], data: Data) -> Callable[[], float]:
    score = accuracy if data.has_classes else r_squared
    return evaluated(model, lambda: score(forward(data.x), data.y))


def _before_step(model: nn.Module, training: Training) -> Callable[[int], None] | None:
    if training.clip is None and training.loss_scale == 1.0:
        return None

    def before_step(step: int) -> None:
        if training.loss_scale != 1.0:
            for p in model.parameters():
                if p.grad is not None:
                    p.grad.div_(training.loss_scale)
        if training.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), training.clip)

    return before_step
