"""wandb.watch, which takes its histograms inside the backward pass.

Its cost is that of a backward pass and a ``run.log`` with it, less that of the same without. The backward pass hands
each parameter its gradient and computes nothing, as the difference would drown in the noise of one that does.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.monitors import Monitor
from benchmarks.timing import difference
from benchmarks.workloads import Workload


class WandbWatch(Monitor):
    """``wandb.watch(model, log="gradients", log_freq=histogram_every)`` in an offline run; it has no norms.

    Counted is the CPU time of the process and of wandb-core, the process it writes by. Off are what has to do with
    neither gradients nor the disk: sampling the machine's load and capturing the console.
    """

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 10) -> None:
        super().__init__(workload, directory, histogram_every)
        import psutil
        import wandb

        directory.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        self.wandb_run = wandb.init(project="benchmark", mode="offline", dir=directory, settings=quiet)
        self.writers = psutil.Process().children(recursive=True)
        self.parameters = workload.parameters

    def watch(self) -> None:
        """Begin to watch; ``idx`` keeps the names the same when it is done again."""
        self.wandb_run.watch(self.workload.model, log="gradients", log_freq=self.histogram_every, idx=0)

    def unwatch(self) -> None:
        """Watch no more."""
        self.wandb_run.unwatch(self.workload.model)

    def step(self) -> None:
        gradients = [p.grad for p in self.parameters]
        self.workload.model.zero_grad()
        torch.autograd.backward(self.parameters, gradients)
        for p, gradient in zip(self.parameters, gradients):
            p.grad = gradient
        self.wandb_run.log({"loss": 0.0})
        self.count += 1

    def flush(self) -> None:
        """Wait until wandb-core has nothing more to do."""
        before, now = -1.0, self._others()
        while now > before:
            time.sleep(0.05)
            before, now = now, self._others()

    def close(self) -> None:
        self.wandb_run.finish()

    def cost(self, steps: int) -> float:
        return difference(lambda watched: self._cost(steps, watched))

    def _cost(self, steps: int, watched: bool) -> float:
        if watched:
            self.watch()
        before = self._others()
        ms = super().cost(steps) + 1e3 * (self._others() - before) / steps
        if watched:
            self.unwatch()
        return ms

    def _others(self) -> float:
        """CPU seconds of the processes that wandb started."""
        return sum(sum(process.cpu_times()[:2]) for process in self.writers)
