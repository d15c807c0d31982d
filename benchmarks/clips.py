"""Clipping by the total norm: torch's own function alone, and gradwatch with its norms and rules, without a record."""

from __future__ import annotations

from pathlib import Path

import torch

import gradwatch as gw
from benchmarks.monitors import Monitor
from benchmarks.workloads import Workload
from gradwatch.stats import measure as norms

NEVER = 1e9
"""A limit that no gradient here reaches."""


FALL = 0.99
"""Of the norm that the last step left, the limit that is always reached. So a block of ten steps changes the norms by a
tenth, and no rule has anything to say; were it by a thousandfold, each block would be a spike."""


class ClipOnly(Monitor):
    """``torch.nn.utils.clip_grad_norm_`` alone, with nothing to clip."""

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.workload.model.parameters(), NEVER)


class Falling(Monitor):
    """Has a limit that is reached at each step."""

    limit: float

    def cost(self, steps: int) -> float:
        self.limit = float(norms([p.grad for p in self.workload.parameters]).total_norm)
        return super().cost(steps)

    def next_limit(self) -> float:
        self.limit *= FALL
        return self.limit


class ClipAlways(Falling):
    """The same where there always is."""

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.workload.model.parameters(), self.next_limit())


class GradwatchClip(Monitor):
    """gradwatch in the place of that function, with nothing to clip."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 0) -> None:
        super().__init__(workload, directory, histogram_every)
        self.monitor = gw.Monitor(workload.model, sinks=(), histogram_every_n_steps=histogram_every, strict=True)

    def step(self) -> None:
        self.monitor.clip_grad_norm_(NEVER)

    def flush(self) -> None:
        self.monitor.flush()

    def close(self) -> None:
        self.monitor.close()


class GradwatchClipAlways(Falling, GradwatchClip):
    """The same where there always is."""

    def step(self) -> None:
        self.monitor.clip_grad_norm_(self.next_limit())
