"""Runs to look at in the browser, written by the real sink, with what was written beside them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import gradwatch as gw
from gradwatch.records import FloatArray, Report, Severity, StepStats

HOSTILE = ("<img src=x onerror=alert(1)>", "a&amp;b", "\u202egnp.exe", "x" * 300, "%{y}<b>bold</b>")
"""Names that a page must show as they are: markup, an entity, reversed writing, too long, plotly's own marks."""


class Written(NamedTuple):
    """What is in a log: names of the layers, norms [T, L] with -1 for no gradient, and all reports of a real run."""

    layers: tuple[str, ...]
    norms: FloatArray
    reports: tuple[Report, ...] = ()


def train(directory: Path, activation: type[nn.Module], *, spike: int, nan: int, steps: int = 360) -> Written:
    """Twelve layers train under a Monitor that clips; one step's gradients are a thousandfold, one layer's NaN."""
    torch.manual_seed(0)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, 12):
        parts[f"fc{i}"], parts[f"act{i}"] = nn.Linear(16, 16), activation()
    parts["out"] = nn.Linear(16, 4)
    model = nn.Sequential(parts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    memory = gw.sinks.Memory()
    sinks = [gw.sinks.TensorBoard(directory), memory]
    with gw.Monitor(model, clip=gw.clipping.GlobalNorm(max_norm=1.0), sinks=sinks) as monitor:
        for step in range(steps):
            x, y = torch.randn(32, 16), torch.randint(0, 4, (32,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for parameter in model.parameters():
                parameter.grad *= 1000.0 if step == spike else 1.0
            if step == nan:
                parts["fc9"].weight.grad[0, 0] = float("nan")
            monitor.step()
            if step != nan:
                optimizer.step()
    stats = [report.stats for report in memory.reports if report.stats is not None]
    norms = np.array([np.where(one.has_grad, one.grad_norm, -1.0) for one in stats])
    return Written(stats[0].layers, norms, tuple(memory.reports))


def write(directory: Path, layers: tuple[str, ...], norms: FloatArray, first: int = 0) -> Written:
    """Norms as they are given, through the sink alone."""
    sink = gw.sinks.TensorBoard(directory)
    for step, row in enumerate(norms, first):
        has_grad = row != -1
        plain = np.where(has_grad, row, 0.0)
        stats = StepStats(step, layers, plain, has_grad, float(np.sqrt(np.sum(plain**2))))
        sink.write(Report("healthy: as written", Severity.INFO, stats=stats))
    sink.close()
    return Written(layers, norms)


def long_run(directory: Path, steps: int = 3000, spike: int = 1234) -> Written:
    """More steps than a window has pixels, with one that is far larger in one layer."""
    norms = 0.1 * np.exp(0.1 * np.random.default_rng(0).standard_normal((steps, 40)))
    norms[spike, 20] = 50.0
    return write(directory, tuple(f"block.{i}.linear" for i in range(40)), norms)


def odd_run(directory: Path) -> Written:
    """Every value that has no logarithm, in layers with hostile names."""
    norms = np.full((60, len(HOSTILE)), 0.5)
    norms[10:20, 0], norms[20:30, 1], norms[30:40, 2], norms[40:50, 3] = np.nan, np.inf, 0.0, -1.0
    return write(directory, HOSTILE, norms)


def write_all(logdir: Path) -> dict[str, Written]:
    """All runs, and two directories that hold none: one torn in the middle of a record, one of another writer."""
    written = {
        "story/sick": train(logdir / "story" / "sick", nn.Sigmoid, spike=150, nan=300),
        "story/well": train(logdir / "story" / "well", nn.ReLU, spike=-1, nan=-1),
        "long": long_run(logdir / "long"),
        "odd & <b>bold": odd_run(logdir / "odd & <b>bold"),
    }
    foreign = logdir / "foreign"
    foreign.mkdir()
    (foreign / "events.out.tfevents.1.host.1.0").write_bytes(b"no record at all")
    return written
