"""Whole training steps with gradwatch, against the same without: what a user sees."""

from __future__ import annotations

from pathlib import Path

from benchmarks.monitors import Gradwatch, Monitor
from benchmarks.timing import cpu_ms, medians
from benchmarks.workloads import Workload

STEPS = 20
"""In one sample."""


def slowdown(workload: Workload, rounds: int, directory: Path) -> float:
    """How many times as long a step takes with gradwatch: norms, default rules and a record at every step."""

    def train(monitor: Monitor) -> float:
        def step() -> None:
            workload.backward()
            monitor.step()
            workload.optimizer.step()

        return cpu_ms(step, times=STEPS)

    both: dict[str, Monitor] = {"with": Gradwatch(workload, directory), "without": Monitor(workload, directory)}
    ms = medians(
        {title: lambda monitor=monitor: train(monitor) for title, monitor in both.items()},
        rounds,
        f"{workload.name} with and without",
    )
    both["with"].close()
    return ms["with"] / ms["without"]
