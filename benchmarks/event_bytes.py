"""Bytes that gradwatch writes per step into TensorBoard's event file."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

import gradwatch as gw
from benchmarks.growth import workload

LAYERS = 300
STEPS = 1_000


def measure(layers: int, steps: int, directory: Path) -> dict[str, float]:
    """The bytes of a step, and the mean with what comes every 100 steps: a scalar and a histogram per layer."""
    model = workload(layers, elements=16).model
    sink = gw.sinks.TensorBoard(directory)
    monitor = gw.Monitor(model, granularity="parameter", sinks=[sink], strict=True)
    sizes = [0]
    for _ in range(steps):
        monitor.step()
        monitor.flush()  # short steps wait for each other
        sizes.append(sum(file.stat().st_size for file in directory.iterdir()))
    monitor.close()
    written = sum(file.stat().st_size for file in directory.iterdir())  # with the last verdict
    each = [after - before for before, after in pairwise(sizes)]
    return {"layers": layers, "step": statistics.median(each), "mean": written / steps}
