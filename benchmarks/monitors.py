"""gradwatch, and what each monitor here has: a step on gradients that are there, and what that costs.

Everything is run as its documentation says, at the cadence that is asked for.
"""

from __future__ import annotations

from pathlib import Path

import gradwatch as gw
from benchmarks.timing import cpu_ms
from benchmarks.workloads import Workload


class Monitor:
    """Does nothing; the others say what they do instead.

    Args:
        workload: the model, with a gradient for every parameter.
        directory: where it may write, its own.
        histogram_every: steps from one with histograms to the next, 0 for none.
    """

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 0) -> None:
        self.workload, self.directory, self.histogram_every = workload, directory, histogram_every
        self.count = 0

    def step(self) -> None:
        """What it does at one optimizer step."""
        self.count += 1

    def flush(self) -> None:
        """Wait for what runs in the background."""

    def close(self) -> None:
        """End it."""

    def run(self, steps: int) -> None:
        """So many steps, and what they left to do in the background."""
        for _ in range(steps):
            self.step()
        self.flush()

    def cost(self, steps: int) -> float:
        """CPU ms per step, measured over ``steps`` of them."""
        return cpu_ms(lambda: self.run(steps)) / steps

    @property
    def histogram_is_due(self) -> bool:
        return self.histogram_every > 0 and self.count % self.histogram_every == 0


class Gradwatch(Monitor):
    """Norms at every step, default rules, a TensorBoard record at every step."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 0) -> None:
        super().__init__(workload, directory, histogram_every)
        self.monitor = gw.Monitor(
            workload.model,
            sinks=[gw.sinks.TensorBoard(directory)],
            histogram_every_n_steps=histogram_every,
            granularity="parameter",
            strict=True,
        )

    def step(self) -> None:
        self.monitor.step()

    def flush(self) -> None:
        self.monitor.flush()

    def close(self) -> None:
        self.monitor.close()
