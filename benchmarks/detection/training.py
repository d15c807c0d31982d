"""train(): the one training loop of all programs, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from benchmarks.detection.task import Task
from gradwatch.records import FloatArray

FINAL_POINTS = 10
"""Metric values in the last tenth of the steps; their mean is the outcome."""

CURVE_POINTS = 30
"""Metric values over the whole run."""

LAST_STEPS = 20
"""Steps that a run goes on with non-finite loss and parameters: no step repairs them, but detectors may wait for more
than one sign."""


class Observer(Protocol):
    """Looks on at two places of every step."""

    def gradients_ready(self, step: int) -> None:
        """The gradients are complete: accumulated and unscaled, before any clipping."""

    def stepped(self, step: int, loss: float) -> None:
        """The optimizer has stepped."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a run.

    Args:
        losses: [T], of the steps done.
        final: [FINAL_POINTS] metric values in the last tenth of the steps; NaN after a breakdown.
        metric_curve: pairs of steps done and metric value, at CURVE_POINTS places; shorter after a breakdown.
    """

    losses: FloatArray
    final: FloatArray
    metric_curve: tuple[tuple[int, float], ...]

    @property
    def metric(self) -> float:
        """m, the mean of ``final``."""
        return float(np.mean(self.final))


def train(task: Task, observer: Observer | None = None) -> Outcome:
    """Train ``task`` to its end, or until it has broken down for good."""
    final = final_points(task.steps)
    curve = curve_points(task.steps)
    measured: dict[int, float] = {}
    losses: list[float] = []
    broken = 0
    for step in range(task.steps):
        losses.append(_step(task, step, observer))
        if observer is not None:
            observer.stepped(step, losses[-1])
        if task.scheduler is not None:
            task.scheduler.step()
        broken = broken + 1 if _is_broken(task, losses[-1]) else 0
        if broken == LAST_STEPS:
            break
        if step + 1 in {*final, *curve}:
            measured[step + 1] = task.metric()
    return Outcome(
        np.array(losses),
        np.array([measured.get(done, math.nan) for done in final]),
        tuple((done, measured[done]) for done in curve if done in measured),
    )


def final_points(steps: int) -> list[int]:
    """Numbers of steps done, evenly spaced in the last tenth.

    >>> final_points(300)
    [273, 276, 279, 282, 285, 288, 291, 294, 297, 300]
    """
    parts = 10 * FINAL_POINTS
    return [math.ceil(steps * (parts - k) / parts) for k in reversed(range(FINAL_POINTS))]


def curve_points(steps: int) -> list[int]:
    """Numbers of steps done, evenly spaced over the run.

    >>> curve_points(300)[:3], curve_points(300)[-1]
    ([10, 20, 30], 300)
    """
    return sorted({max(1, round(steps * k / CURVE_POINTS)) for k in range(1, CURVE_POINTS + 1)})


def _step(task: Task, step: int, observer: Observer | None) -> float:
    def ready() -> None:
        if observer is not None:
            observer.gradients_ready(step)

    if task.train_step is not None:
        return float(task.train_step(step, ready))
    task.optimizer.zero_grad()
    loss = 0.0
    for i in range(task.accumulate):
        part = task.loss(step * task.accumulate + i) / task.accumulate
        (part if task.scaler is None else task.scaler.scale(part)).backward()
        loss += part.item()
    if task.scaler is not None:
        task.scaler.unscale_(task.optimizer)
    ready()
    if task.before_step is not None:
        task.before_step(step)
    if task.scaler is None:
        task.optimizer.step()
    else:
        task.scaler.step(task.optimizer)
        task.scaler.update()
    return loss


def _is_broken(task: Task, loss: float) -> bool:
    """Whether the loss and a parameter are not finite; the parameters are looked at only when the loss is not."""
    return not math.isfinite(loss) and not all(bool(torch.isfinite(p).all()) for p in task.model.parameters())
