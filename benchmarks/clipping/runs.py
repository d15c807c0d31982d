"""One training run, and what of it counts."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import gradwatch as gw
from benchmarks.clipping import troubles
from benchmarks.clipping.methods import Clipping, Limits, make
from benchmarks.clipping.tasks import Task

EVERY = 10
"""Steps between two readings of the loss."""

READINGS = 3
"""Of which the last make the final loss."""


class Run(NamedTuple):
    loss: float
    """At the end, held out; inf where the network is no longer finite."""
    rate: float
    """Share of steps that were clipped or skipped."""
    curve: list[float]
    """Of a healthy run the loss at every reading, else empty."""


def train(task: Task, trouble: str, method: str, limits: Limits, seed: int, steps: int) -> Run:
    """Train once. The seed fixes the network, its batches and what goes wrong, whatever the method."""
    model, clipping = _begin(task, seed, method, limits)
    optimizer = task.optimizer(model)
    batches, trouble_of = (torch.Generator().manual_seed(10 * seed + i) for i in (1, 2))
    curve, healthy = [], trouble == "nothing" and method == "no clipping"
    for step in range(steps):
        optimizer.zero_grad()
        loss = task.loss(model, task.batch(batches))
        (loss * troubles.scale(trouble, step, steps, trouble_of)).backward()
        troubles.disturb(trouble, model, trouble_of)
        clipping.step()
        optimizer.step()
        left = steps - 1 - step
        if left % EVERY == 0 and (healthy or left < READINGS * EVERY):
            curve.append(read(task, model))
    return Run(float(np.mean(curve[-READINGS:])), clipping.rate(), curve if healthy else [])


def calibrate(task: Task, seed: int, steps: int) -> Limits:
    """The limits that a healthy run of another seed suggests."""
    model, _ = _begin(task, seed)
    optimizer, batches = task.optimizer(model), torch.Generator().manual_seed(10 * seed + 1)
    monitor = gw.Monitor(model, sinks=(), rules=(), diagnose=False, histogram_every_n_steps=0)
    largest = []
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(model, task.batch(batches)).backward()
        monitor.step()
        largest.append(max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None))
        optimizer.step()
    norms = monitor.history.grad_norm
    columns = (monitor.history.total_norm, norms.max(axis=1), largest)
    return Limits(*(float(np.percentile(column, 99)) for column in columns))


def read(task: Task, model: nn.Module) -> float:
    """The loss on what was held out, inf where it is NaN."""
    with torch.no_grad():
        loss = float(task.loss(model, task.held_out()))
    return loss if math.isfinite(loss) else math.inf


def steps_lost(run: Run, healthy: Run, steps: int) -> int:
    """How many steps earlier the healthy run of the same seed was where this one ended; all where it is lost."""
    if not math.isfinite(run.loss):
        return steps
    width = min(READINGS, len(healthy.curve))  # both are means of so many readings
    best = np.minimum.accumulate(np.convolve(healthy.curve, np.full(width, 1 / width), "valid"))
    reached = np.flatnonzero(best <= run.loss)
    return EVERY * (len(best) - 1 - int(reached[0])) if len(reached) else 0


def _begin(
    task: Task, seed: int, method: str = "no clipping", limits: Limits | None = None
) -> tuple[nn.Module, Clipping]:
    torch.manual_seed(seed)
    model = task.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model, make(method, model, limits or Limits(1.0, 1.0, 1.0))
