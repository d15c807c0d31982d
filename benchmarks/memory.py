"""What gradwatch needs of memory: the peak of a step, and what is left after many. Each in a process of its own.

The peak is that of the resident memory, which holds torch's, NumPy's and Python's together; Linux lets a process set
it back. What the monitor only imports is left out, as it is loaded before.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import gradwatch as gw
from benchmarks.growth import workload as plain_tensors
from benchmarks.monitors import Gradwatch, Monitor
from benchmarks.timing import in_child
from benchmarks.workloads import ALL, Workload

MARKS = (1_000, 10_000, 100_000)
TRACED = (1_000, 10_000)
"""Steps at which tracemalloc is asked, fewer because it makes each three times as long; what it would find later shows
in the number of Python's objects, which costs nothing to know."""

LAYERS, ELEMENTS = 8, 64

LINUX = Path("/proc/self/status").exists()


def peak(name: str, histogram_every: int) -> float | None:
    """MB that gradwatch adds at most to a process with the gradients of workload ``name``; None where unknown."""
    return in_child(_peak_of_gradwatch, name, histogram_every)


def over_steps(marks: Sequence[int] = MARKS, traced: Sequence[int] = TRACED) -> dict[str, list[dict[str, Any]]]:
    """What is in use after so many steps, with a TensorBoard record at every step and histograms every 100."""
    return {
        "in_use": in_child(_over_steps, tuple(marks), _in_use),
        "traced": in_child(_over_steps, tuple(traced), _traced),
    }


def _peak_of_gradwatch(name: str, histogram_every: int) -> float | None:
    with _directory() as directory:
        Gradwatch(_with_gradients(plain_tensors(1, ELEMENTS)), directory / "warm up", 1).run(2)
        workload = _with_gradients(ALL[name]())
        steps = histogram_every + 2  # also the step after a sampled one, which compares the parameters
        return peak_of(lambda: Gradwatch(workload, directory / "measured", histogram_every), steps)


def peak_of(make: Callable[[], Monitor], steps: int) -> float | None:
    """MB by which the process's largest resident memory exceeds what it is now, while a monitor takes ``steps``."""
    if not LINUX:
        return None
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before = resident("VmRSS")
    monitor = make()
    monitor.run(steps)
    return (resident("VmHWM") - before) / 1e6


def _over_steps(marks: Sequence[int], look: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    with _directory() as directory:
        workload = _with_gradients(plain_tensors(LAYERS, ELEMENTS))
        monitor = gw.Monitor(
            workload.model, granularity="parameter", sinks=[gw.sinks.TensorBoard(directory)], strict=True
        )
        look()
        for step in range(1, max(marks) + 1):
            for p in workload.parameters:
                p.grad.normal_(std=1e-3)
            monitor.step()
            if step in marks:
                gc.collect()
                found.append({"steps": step, **look()})
    return found


def _in_use() -> dict[str, Any]:
    """Resident memory, and Python's objects, that is the blocks it has in use."""
    return {"resident_mb": resident("VmRSS") / 1e6 if LINUX else None, "objects": sys.getallocatedblocks()}


def _traced() -> dict[str, Any]:
    """What tracemalloc knows of: Python's objects and NumPy's arrays made since the first call."""
    tracemalloc.start()  # does nothing where it was called before
    return {"traced_mb": tracemalloc.get_traced_memory()[0] / 1e6}


def _with_gradients(workload: Workload) -> Workload:
    """``workload`` with gradients that no backward pass made, which would leave memory behind to use again."""
    for p in workload.parameters:
        p.grad = torch.empty_like(p).normal_(std=1e-3)
    return workload


def resident(field: str) -> int:
    """Bytes, as Linux has them: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kilobytes)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)
