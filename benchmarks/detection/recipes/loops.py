"""How a model is trained, as settings: optimizer, schedule, clipping, precision, and the order of the batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import Data
from benchmarks.detection.recipes.losses import LOSSES, accuracy, r_squared
from benchmarks.detection.recipes.optimizers import OPTIMIZERS
from benchmarks.detection.task import Task

MEASURED = 256
"""The metric is taken over so many examples at most: it is asked for some forty times in a run."""

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "restarts": lambda done: (1 + math.cos(math.pi * (4 * done % 1.0))) / 2,
    "linear": lambda done: 1 - done,
    "steps": lambda done: 0.1 ** int(3 * done),
    "one_cycle": lambda done: max(0.04, 1 - abs(done - 0.3) / (0.3 if done < 0.3 else 0.7)),
    "spike": lambda done: 20.0 if 0.5 <= done < 0.51 else 1.0,
    "shock": lambda done: 3000.0 if done < 0.01 else 1.0,
    "mild_shock": lambda done: 300.0 if done < 0.01 else 1.0,
}
"""Factor of the learning rate by the share of the run that is done."""

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


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
        loss_scale: a fixed factor of the loss, taken out of the gradients again before the step.
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
    loss_scale: float = 1.0
    accumulate: int = 1
    steps: int = 300
    batch: int = 64

    def make_optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](parameters, lr=self.lr, **self.options)

    def autocast(self) -> torch.autocast:
        """The context in which the model is called."""
        dtype = PRECISIONS.get(self.precision)
        return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)

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

    def batch_loss(step: int) -> Tensor:
        with loop.autocast():
            return loss(order[step]) * loop.loss_scale

    def measured() -> float:
        with loop.autocast():
            return metric()

    def unscale_and_clip(step: int) -> None:
        for p in model.parameters() if loop.loss_scale != 1.0 else ():
            if p.grad is not None:
                p.grad.div_(loop.loss_scale)
        if loop.clip:
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

    varies = loop.warmup or loop.schedule != "constant"
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, loop.factor) if varies else None
    return Task(
        model=model,
        optimizer=optimizer,
        loss=batch_loss,
        metric=evaluated(model, measured),
        trivial=trivial,
        steps=loop.steps,
        before_step=unscale_and_clip if loop.clip or loop.loss_scale != 1.0 else None,
        scheduler=_Then(scheduler, after_step) if after_step else scheduler,
        scaler=None if loop.scaler is None else torch.amp.GradScaler("cpu", **loop.scaler),
        accumulate=loop.accumulate,
        train_step=with_closure if loop.optimizer == "lbfgs" else None,
    )


def supervised(
    model: nn.Module,
    data: Data,
    seed: int,
    *,
    loss: str | Callable[[Tensor, Tensor], Tensor] = "",
    loss_weight: float = 1.0,
    parameters: Iterable[Any] | None = None,
    measured: int = MEASURED,
    **loop: Any,
) -> Task:
    """The task of predicting ``data.y`` from ``data.x``: accuracy for classes, R^2 for values.

    Args:
        model: what predicts.
        data: all of it.
        seed: of the batches' order.
        loss: a name in ``LOSSES``, or a function; by default cross entropy for classes, squared error for values.
        loss_weight: a factor of the loss.
        parameters: what the optimizer is given, all of the model's when it is None.
        measured: the metric is taken over so many examples at most.
        loop: see ``Loop``.
    """
    criterion = loss if callable(loss) else LOSSES[loss or ("cross_entropy" if data.has_classes else "mse")]
    score = accuracy if data.has_classes else r_squared
    few = data.first(measured)

    def batch_loss(rows: Tensor) -> Tensor:
        return criterion(_outputs(model, data.x[rows]), data.y[rows]) * loss_weight

    def metric() -> float:
        return score(_outputs(model, few.x), few.y)

    return run(
        model,
        seed,
        Loop(**loop),
        batch_loss,
        metric,
        examples=len(data.x),
        trivial=few.trivial,
        parameters=parameters,
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


class _Then:
    """A scheduler, if any, and something else to do after each step."""

    def __init__(
        self, scheduler: torch.optim.lr_scheduler.LRScheduler | None, after_step: Callable[[int], None]
    ) -> None:
        self._scheduler, self._after_step, self._steps = scheduler, after_step, 0

    def step(self) -> None:
        if self._scheduler is not None:
            self._scheduler.step()
        self._after_step(self._steps)
        self._steps += 1


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    """What autocast returned in half precision, as float32: losses are no place for 16 bits."""
    outputs: Tensor = model(x)
    return outputs.float() if outputs.dtype in PRECISIONS.values() else outputs
