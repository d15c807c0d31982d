"""diagnose(): what a user would be told of a program, by a Monitor that watches its run live and looks into it."""

from __future__ import annotations

from dataclasses import dataclass

import gradwatch as gw
from benchmarks.detection.task import Program, Task
from benchmarks.detection.training import train
from gradwatch.records import Alert, Diagnosis

SHOWN = 3
"""Diagnoses that are kept: the first one counts."""


@dataclass(frozen=True)
class Told:
    """What came of watching one run.

    Args:
        alerts: of severity WARNING or ERROR, oldest first.
        diagnoses: of the report at its end, most confident first.
    """

    alerts: tuple[Alert, ...]
    diagnoses: tuple[Diagnosis, ...]


class Watch:
    """An observer of :func:`~benchmarks.detection.training.train` that holds a Monitor with default settings."""

    def __init__(self, task: Task) -> None:
        self.monitor = gw.Monitor(task.model, optimizer=task.optimizer, scaler=task.scaler, sinks=(), strict=True)

    def gradients_ready(self, step: int) -> None:
        self.monitor.step(step)

    def stepped(self, step: int, loss: float) -> None:
        """Nothing of the step that the monitor would need."""


def diagnose(program: Program, seed: int) -> Told:
    """Train ``program`` once and take the report at the end."""
    task = program.build(seed)
    watch = Watch(task)
    with watch.monitor:
        train(task, watch)
        report = watch.monitor.report()
    alerts = tuple(a for a in report.alerts if a.severity > gw.Severity.INFO)
    return Told(alerts, report.diagnoses[:SHOWN])
