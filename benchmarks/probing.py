"""What a probed step costs: a whole training step with the probe against one without, and what it needs of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from benchmarks.memory import LINUX, resident
from benchmarks.timing import cpu_ms, in_child, medians
from benchmarks.workloads import ALL, Workload
from gradwatch.layers import LayerTable
from gradwatch.probe_schedule import ProbeSchedule
from gradwatch.probing import Probe

LIMITS = {"W1": 3.0, "W2": 1.15, "W3": 1.15}
"""Training steps that one with a probe may cost."""

STEPS = {"W1": 20}
"""Training steps of one sample, 1 of those that are long."""


def ratio(workload: Workload, rounds: int) -> float:
    """CPU time of a probed training step to that of one that is not, medians of samples in random order."""
    steps = STEPS.get(workload.name, 1)
    methods: dict[str, Callable[[], float]] = {
        "plain": lambda: cpu_ms(lambda: _step(workload), steps),
        "probed": lambda: cpu_ms(lambda: _probed_step(workload), steps),
    }
    found = medians(methods, rounds, f"{workload.name} probed")
    return found["probed"] / found["plain"]


def unprobed_us(times: int = 100_000) -> float:
    """CPU time in us that the schedule of probes takes of a step that is not probed."""
    schedule = ProbeSchedule(LayerTable(ALL["W1"]().model))

    def step() -> None:
        schedule.take(7)
        schedule.get_ready(7, 100)

    return 1e3 * cpu_ms(step, times)


def peak_mb(name: str) -> float | None:
    """MB by which a probed step's peak of resident memory exceeds that of a step without; None where unknown."""
    if not LINUX:
        return None
    return in_child(_peak, name, True) - in_child(_peak, name, False)


def _step(workload: Workload) -> None:
    workload.backward()
    workload.optimizer.step()


def _probed_step(workload: Workload) -> None:
    probe = Probe(workload.model)
    probe.arm()
    workload.backward()
    probe.take()
    workload.optimizer.step()


def _peak(name: str, probed: bool) -> float:
    """The largest resident memory of one step, after another without a probe."""
    workload = ALL[name]()
    _step(workload)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    (_probed_step if probed else _step)(workload)
    return resident("VmHWM") / 1e6
