"""Whole training steps with gradwatch, against the same without: what a user sees."""

from __future__ import annotations

from pathlib import Path

from benchmarks.monitors import Gradwatch, Monitor
from benchmarks.timing import cpu_ms, medians
from benchmarks.workloads import Workload
from gradwatch.journal import TOGETHER

STEPS = 3 * TOGETHER
"""In one sample, so that each has taken in as many as it made."""


class OneByOne(Gradwatch):
    """Takes each step in before the next, as where steps are long."""

    def step(self) -> None:
        super().step()
        self.monitor.flush()


def slowdown(workload: Workload, rounds: int, directory: Path) -> dict[str, float]:
    """How many times as long a step takes with gradwatch: norms, default rules and a record at every step.

    Returns:
        As it is, "together", and with each step taken in by itself, "one by one".
    """

    def train(monitor: Monitor) -> float:
        def step() -> None:
            workload.backward()
            monitor.step()
            workload.optimizer.step()

        return cpu_ms(step, times=STEPS)

    monitors: dict[str, Monitor] = {
        "without": Monitor(workload, directory),
        "together": Gradwatch(workload, directory / "together"),
        "one by one": OneByOne(workload, directory / "one by one"),
    }
    ms = medians(
        {title: lambda monitor=monitor: train(monitor) for title, monitor in monitors.items()},
        rounds,
        f"{workload.name} with and without",
    )
    for monitor in monitors.values():
        monitor.close()
    without = ms.pop("without")
    return {title: with_it / without for title, with_it in ms.items()}
