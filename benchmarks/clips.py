"""Clipping by the total norm: torch's own function alone, and gradwatch with its norms and rules, without a record."""

from __future__ import annotations

from pathlib import Path

import torch

import gradwatch as gw
from benchmarks.monitors import Monitor
from benchmarks.workloads import Workload

NEVER = 1e9
"""A limit that no gradient here reaches."""


def falling_limit(step: int) -> float:
    """Far below any gradient here, and half of itself at each of ten steps, after which the gradients are restored."""
    return float(1e-3 / 2 ** (step % 10))


class ClipOnly(Monitor):
    """``torch.nn.utils.clip_grad_norm_`` alone, with nothing to clip."""

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.workload.model.parameters(), NEVER)


class ClipAlways(Monitor):
    """The same with a limit that is always reached: half of what the last step left."""

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.workload.model.parameters(), falling_limit(self.count))
        self.count += 1


class GradwatchClip(Monitor):
    """gradwatch in the place of that function, with nothing to clip."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 0) -> None:
        super().__init__(workload, directory, histogram_every)
        self.monitor = gw.Monitor(workload.model, sinks=(), histogram_every_n_steps=histogram_every, strict=True)

    def step(self) -> None:
        self.monitor.clip_grad_norm_(NEVER)

    def close(self) -> None:
        self.monitor.close()


class GradwatchClipAlways(GradwatchClip):
    """The same with a limit that is always reached."""

    def step(self) -> None:
        self.monitor.clip_grad_norm_(falling_limit(self.count))
        self.count += 1
