"""CPU time per step of gradwatch and of its peers, in one process, on the gradients of a real backward pass.

One sample is a block of steps; blocks of all methods follow each other in random order, and the median over the rounds
is what is shown. One streaming read of the gradients, by torch's sum, is the least that any norm can cost.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import clips, in_backward, in_trainer, monitors, peers
from benchmarks.timing import cpu_ms, medians
from benchmarks.workloads import Workload
from gradwatch.stats import measure as norms

BLOCK = 10
"""Steps in one sample, so that what happens every tenth step happens once in it."""


@dataclass(frozen=True)
class Method:
    """A row of the table: a monitor, and how often it takes histograms."""

    kind: Callable[[Workload, Path, int], monitors.Monitor]
    histogram_every: int = 0

    @property
    def block(self) -> int:
        """Steps in one sample."""
        return max(BLOCK, self.histogram_every)


STEP = "training step"
READ = "one streaming read"
NORMS = "gradwatch's norms alone"
GRADWATCH = "gradwatch"
GRADWATCH_100 = "gradwatch, histograms every 100"
GRADWATCH_10 = "gradwatch, histograms every 10"
CALLBACK = "gradwatch in a Lightning Trainer"
LIGHTNING = "Lightning grad_norm + log_metrics"
LOG_DICT = "Lightning log_dict(grad_norm) in a Trainer"
IGNITE = "Ignite scalars"
IGNITE_10 = "Ignite scalars + histograms every 10"
WANDB = "wandb.watch, histograms every 10, no norms"
BY_HAND = "by hand: norm().item(), add_scalar"
BY_HAND_10 = "by hand, add_histogram every 10"
CLIP = "clip_grad_norm_"
GRADWATCH_CLIP = "gradwatch + GlobalNorm"
CLIPS = "clip_grad_norm_, clips"
GRADWATCH_CLIPS = "gradwatch + GlobalNorm, clips"

METHODS = {
    GRADWATCH: Method(monitors.Gradwatch),
    GRADWATCH_100: Method(monitors.Gradwatch, 100),
    GRADWATCH_10: Method(monitors.Gradwatch, 10),
    CALLBACK: Method(in_trainer.Callback),
    LIGHTNING: Method(peers.LightningFunction),
    LOG_DICT: Method(in_trainer.LogDict),
    IGNITE: Method(peers.Ignite),
    IGNITE_10: Method(peers.Ignite, 10),
    WANDB: Method(in_backward.WandbWatch, 10),
    BY_HAND: Method(peers.HandWritten),
    BY_HAND_10: Method(peers.HandWritten, 10),
    CLIP: Method(clips.ClipOnly),
    GRADWATCH_CLIP: Method(clips.GradwatchClip),
    CLIPS: Method(clips.ClipAlways),
    GRADWATCH_CLIPS: Method(clips.GradwatchClipAlways),
}


def measure(workload: Workload, rounds: int, directory: Path) -> dict[str, Any]:
    """The medians of one workload in ms per step, how exact the norms are, and what gradwatch writes."""
    workload.backward()
    kept = [p.grad.clone() for p in workload.parameters]
    flat = torch.cat([gradient.view(-1) for gradient in kept])
    running = {
        title: method.kind(workload, directory / str(i), method.histogram_every)
        for i, (title, method) in enumerate(METHODS.items())
    }

    def step() -> float:
        found = cpu_ms(lambda: (workload.backward(), workload.optimizer.step()))
        workload.backward()
        for mine, p in zip(kept, workload.parameters):
            mine.copy_(p.grad)
        return found

    def norms_alone() -> float:
        gradients = [p.grad for p in workload.parameters]
        return cpu_ms(lambda: norms(gradients).norms.tolist(), times=BLOCK)

    def cost(title: str) -> float:
        found = running[title].cost(METHODS[title].block)
        for p, gradient in zip(workload.parameters, kept):
            p.grad.copy_(gradient)
        return found

    gc.collect()
    gc.freeze()  # else a method pays for walking through what all others hold, 100 ms a time
    found = medians(
        {
            STEP: step,
            READ: lambda: cpu_ms(flat.sum, times=BLOCK),
            NORMS: norms_alone,
            **{title: lambda title=title: cost(title) for title in METHODS},
        },
        rounds,
        f"{workload.name} {workload.title}",
    )
    gc.unfreeze()
    for monitor in running.values():
        monitor.close()
    written = sum(file.stat().st_size for file in running[GRADWATCH].directory.iterdir())
    return {
        "title": workload.title,
        "tensors": len(kept),
        "megabytes": workload.megabytes,
        "rounds": rounds,
        "norm_error": norm_error(kept),
        "event_bytes_per_step": written / (BLOCK * (rounds + 1)),
        "ms": {title: found[title] for title in (STEP, READ, NORMS, *METHODS)},
    }


def norm_error(gradients: list[torch.Tensor]) -> float:
    """The largest relative error of gradwatch's norms against float64."""
    exact = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients])
    found = norms(gradients).norms.double()
    return float(((found - exact).abs() / exact)[exact > 0].max())
