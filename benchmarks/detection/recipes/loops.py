"""How a run is trained, as settings, beyond what ``fitting`` offers: more optimizers, losses, schedules, precisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import Data
from benchmarks.detection.recipes.fitting import MEASURED, batch_order, evaluated
from benchmarks.detection.recipes.losses import accuracy, r_squared
from benchmarks.detection.recipes.optimizers import OPTIMIZERS
from benchmarks.detection.task import Task

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "restarts": lambda done: (1 + math.cos(math.pi * (4 * done % 1.0))) / 2,
    "linear": lambda done: 1 - done,
    "steps": lambda done: 0.1 ** int(3 * done),
    "one_cycle": lambda done: max(0.04, 1 - abs(done - 0.3) / (0.3 if done < 0.3 else 0.7)),
    "spike": lambda done: 20.0 if 0.5 <= done < 0.51 else 1.0,
}
"""Factor of the learning rate by the share of the run that is done."""

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}

CRITERIA: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "cross_entropy_sum": lambda outputs, y: F.cross_entropy(outputs, y, reduction="sum"),
    "label_smoothing": lambda outputs, y: F.cross_entropy(outputs, y, label_smoothing=0.1),
    "nll": lambda outputs, y: F.nll_loss(outputs.log_softmax(1), y),
    "focal": lambda outputs, y: _focal(outputs, y),
    "hinge": F.multi_margin_loss,
    "bce": lambda outputs, y: F.binary_cross_entropy_with_logits(outputs, _one_hot(outputs, y)),
    "brier": lambda outputs, y: F.mse_loss(outputs.softmax(1), _one_hot(outputs, y)),
    "one_hot_mse": lambda outputs, y: F.mse_loss(outputs, _one_hot(outputs, y)),
    "mse": F.mse_loss,
    "huber": F.smooth_l1_loss,
}


@dataclass(frozen=True)
class Loop:
    """Everything about a run but its model, its data and its loss.

    Args:
        optimizer: a name in ``OPTIMIZERS``.
        lr: step size.
        options: the optimizer's other arguments, as ``{"momentum": 0.9}``.
        schedule: a name in ``SCHEDULES``.
        warmup: steps in which the learning rate climbs.
        clip: largest norm of all gradients together.
        precision: ``"float32"``, or ``"float16"`` or ``"bfloat16"`` for autocast.
        scaler: arguments of a ``torch.amp.GradScaler``.
        accumulate: backward passes per step.
        steps: optimizer steps.
        batch: examples per backward pass.
    """

    optimizer: str = "adam"
    lr: float = 1e-3
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    warmup: int = 0
    clip: float | None = None
    precision: str = "float32"
    scaler: Mapping[str, Any] | None = None
    accumulate: int = 1
    steps: int = 300
    batch: int = 64

    def make_optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](parameters, lr=self.lr, **self.options)

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at ``step``."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return warm * SCHEDULES[self.schedule](min(1.0, step / self.steps))


def run(
    model: nn.Module,
    seed: int,
    loop: Loop,
    loss: Callable[[Tensor], Tensor],
    metric: Callable[[], float],
    *,
    examples: int,
    trivial: float = 0.0,
    parameters: Iterable[Any] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Task:
    """The task of minimising ``loss``, which is given the rows of a batch, int64 [batch].

    Args:
        model: holds what is trained.
        seed: of the batches' order.
        loop: how it is trained.
        loss: rows -> loss.
        metric: called in eval mode and without gradients.
        examples: how many there are.
        trivial: what the trivial predictor gets in ``metric``.
        parameters: what the optimizer is given, all of the model's when it is None.
        after_step: for what else changes after each step, as a target network.
    """
    optimizer = loop.make_optimizer(model.parameters() if parameters is None else parameters)
    order = batch_order(examples, loop.batch, loop.steps * loop.accumulate, seed)
    precision = PRECISIONS.get(loop.precision)

    def batch_loss(step: int) -> Tensor:
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            return loss(order[step])

    def clip(step: int) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), loop.clip)

    def with_closure(step: int, gradients_ready: Callable[[], None]) -> float:
        evaluations: list[float] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = batch_loss(step)
            value.backward()
            if not evaluations:
                gradients_ready()
            evaluations.append(value.item())
            return value

        optimizer.step(closure)
        return evaluations[0]

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, loop.factor)
    return Task(
        model=model,
        optimizer=optimizer,
        loss=batch_loss,
        metric=evaluated(model, metric),
        trivial=trivial,
        steps=loop.steps,
        before_step=clip if loop.clip else None,
        scheduler=_Then(scheduler, after_step) if after_step else scheduler,
        scaler=None if loop.scaler is None else torch.amp.GradScaler("cpu", **loop.scaler),
        accumulate=loop.accumulate,
        train_step=with_closure if loop.optimizer == "lbfgs" else None,
    )


def supervised(
    model: nn.Module,
    data: Data,
    seed: int,
    loop: Loop,
    *,
    loss: str | Callable[[Tensor, Tensor], Tensor] = "",
    loss_weight: float = 1.0,
    parameters: Iterable[Any] | None = None,
    measured: int = MEASURED,
) -> Task:
    """The task of predicting ``data.y`` from ``data.x``: accuracy for classes, R^2 for values.

    Args:
        model: what predicts.
        data: all of it.
        seed: of the batches' order.
        loop: how it is trained.
        loss: a name in ``CRITERIA``, or a function; by default cross entropy for classes, squared error for values.
        loss_weight: a factor of the loss.
        parameters: what the optimizer is given, all of the model's when it is None.
        measured: the metric is taken over so many examples at most.
    """
    criterion = loss if callable(loss) else CRITERIA[loss or ("cross_entropy" if data.has_classes else "mse")]
    score = accuracy if data.has_classes else r_squared

    def batch_loss(rows: Tensor) -> Tensor:
        return criterion(model(data.x[rows]), data.y[rows]) * loss_weight

    def metric() -> float:
        return score(model(data.x[:measured]).float(), data.y[:measured])

    return run(model, seed, loop, batch_loss, metric, examples=len(data.x), trivial=data.trivial, parameters=parameters)


class _Then:
    """A scheduler, and something else to do after each step."""

    def __init__(self, scheduler: torch.optim.lr_scheduler.LRScheduler, after_step: Callable[[int], None]) -> None:
        self._scheduler, self._after_step, self._steps = scheduler, after_step, 0

    def step(self) -> None:
        self._scheduler.step()
        self._after_step(self._steps)
        self._steps += 1


def _one_hot(outputs: Tensor, classes: Tensor) -> Tensor:
    return F.one_hot(classes, outputs.shape[1]).to(outputs.dtype)


def _focal(outputs: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy that counts what is known already less (Lin et al., 2017)."""
    loss = F.cross_entropy(outputs, classes, reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()
