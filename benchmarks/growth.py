"""How the cost grows with the number of tensors, and with their size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.monitors import Gradwatch
from benchmarks.timing import cpu_ms, medians
from benchmarks.workloads import Workload
from gradwatch.stats import measure

TENSORS = (10, 100, 1_000, 10_000)
TINY = 64
"""Elements of each."""

MEGABYTES = (0.04, 0.4, 4, 40, 400)
PIECES = 100
"""Tensors that make them up."""

STEPS = 10


def by_tensors(counts: Sequence[int], rounds: int, directory: Path) -> list[dict[str, float]]:
    """Cost per step of so many tiny tensors."""
    return _measured([("tensors", n, n, TINY) for n in counts], rounds, directory)


def by_size(megabytes: Sequence[float], rounds: int, directory: Path) -> list[dict[str, float]]:
    """Cost per step of a hundred tensors of so many MB together."""
    cases = [("megabytes", size, PIECES, round(size * 1e6 / 4 / PIECES)) for size in megabytes]
    return _measured(cases, rounds, directory)


def workload(tensors: int, elements: int) -> Workload:
    """A model of ``tensors`` parameters with gradients, which computes nothing."""
    model = nn.ParameterList(torch.zeros(elements) for _ in range(tensors))
    for p in model:
        p.grad = torch.empty_like(p).normal_(std=1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return Workload("", f"{tensors} tensors of {elements}", model, optimizer, lambda: torch.zeros(()))


def _measured(cases: Sequence[tuple[str, float, int, int]], rounds: int, directory: Path) -> list[dict[str, float]]:
    found = []
    for name, value, tensors, elements in cases:
        case = workload(tensors, elements)
        gradients = [p.grad for p in case.parameters]
        flat = torch.cat(gradients)
        monitor = Gradwatch(case, directory / name / str(value))
        ms = medians(
            {
                "read": lambda flat=flat: cpu_ms(flat.sum, times=STEPS),
                "norms": lambda gradients=gradients: cpu_ms(lambda: measure(gradients).norms.tolist(), times=STEPS),
                "gradwatch": lambda monitor=monitor: monitor.cost(STEPS),
            },
            rounds,
            f"{value:,} {name}",
        )
        monitor.close()
        found.append({name: value, **{f"{title}_ms": value for title, value in ms.items()}})
    return found
