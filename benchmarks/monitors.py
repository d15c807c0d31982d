"""gradwatch, and what a user would pick instead: each takes the gradients of a model at every step and logs them.

Everything is run as its documentation says, at the cadence that is asked for. ``step()`` is what a monitor does at one
optimizer step, ``flush()`` waits for threads of its own, ``close()`` ends it.
"""

from __future__ import annotations

from pathlib import Path

import torch

import gradwatch as gw
from benchmarks.workloads import Workload


class Monitor:
    """Does nothing; the others say what they do instead."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int) -> None:
        self.workload, self.directory, self.histogram_every = workload, directory, histogram_every
        self.count = 0

    def step(self) -> None:
        self.count += 1

    @property
    def histogram_is_due(self) -> bool:
        return self.histogram_every > 0 and self.count % self.histogram_every == 0

    def flush(self) -> None:
        """Wait for what runs in the background."""

    def close(self) -> None:
        """End it."""


class Gradwatch(Monitor):
    """Norms at every step, default rules, a TensorBoard record at every step."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int) -> None:
        super().__init__(workload, directory, histogram_every)
        sinks = [gw.sinks.TensorBoard(directory)]
        self.monitor = gw.Monitor(
            workload.model, sinks=sinks, histogram_every_n_steps=histogram_every, granularity="parameter", strict=True
        )

    def step(self) -> None:
        self.monitor.step()

    def close(self) -> None:
        self.monitor.close()


class Writer(Monitor):
    """What uses torch's SummaryWriter."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int) -> None:
        super().__init__(workload, directory, histogram_every)
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(directory)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class HandWritten(Writer):
    """``p.grad.norm().item()`` with ``add_scalar`` for each parameter, ``add_histogram`` on sampled steps."""

    def step(self) -> None:
        for name, p in self.workload.model.named_parameters():
            self.writer.add_scalar(f"grad_norm/{name}", p.grad.norm().item(), self.count)
            if self.histogram_is_due:
                self.writer.add_histogram(f"grad/{name}", p.grad, self.count)
        self.count += 1


class Lightning(Monitor):
    """Lightning's ``grad_norm`` and one ``log_metrics`` of its TensorBoardLogger; it has no histograms."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int) -> None:
        super().__init__(workload, directory, histogram_every)
        from lightning.pytorch.loggers import TensorBoardLogger

        self.logger = TensorBoardLogger(directory)

    def step(self) -> None:
        from lightning.pytorch.utilities import grad_norm

        self.logger.log_metrics(grad_norm(self.workload.model, norm_type=2), step=self.count)
        self.count += 1

    def flush(self) -> None:
        self.logger.experiment.flush()

    def close(self) -> None:
        self.logger.finalize("success")


class Ignite(Monitor):
    """Ignite's GradsScalarHandler at every step and GradsHistHandler on sampled steps."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int) -> None:
        super().__init__(workload, directory, histogram_every)
        from ignite.engine import Engine, Events
        from ignite.handlers.tensorboard_logger import GradsHistHandler, GradsScalarHandler, TensorboardLogger

        self.engine = Engine(lambda engine, batch: None)
        self.logger = TensorboardLogger(log_dir=directory)
        self.event = Events.ITERATION_COMPLETED
        scalars = GradsScalarHandler(workload.model, reduction=torch.norm)
        self.logger.attach(self.engine, event_name=self.event, log_handler=scalars)
        if histogram_every:
            histograms = GradsHistHandler(workload.model)
            self.logger.attach(self.engine, event_name=self.event(every=histogram_every), log_handler=histograms)

    def step(self) -> None:
        self.count += 1
        self.engine.state.iteration = self.count
        self.engine.fire_event(self.event)

    def flush(self) -> None:
        self.logger.writer.flush()

    def close(self) -> None:
        self.logger.close()


class ClipOnly(Monitor):
    """``torch.nn.utils.clip_grad_norm_`` alone, with a limit that is never reached."""

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.workload.parameters, 1e9)


class ClipAlways(Monitor):
    """The same with a limit that is always reached: half of what the last step left."""

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.workload.parameters, falling_limit(self.count))
        self.count += 1


class GradwatchClip(Monitor):
    """gradwatch with GlobalNorm and nothing to clip; norms and rules, no record."""

    limit = 1e9

    def __init__(self, workload: Workload, directory: Path, histogram_every: int) -> None:
        super().__init__(workload, directory, histogram_every)
        self.monitor = gw.Monitor(workload.model, sinks=(), histogram_every_n_steps=0, strict=True)

    def step(self) -> None:
        self.monitor.clip_grad_norm_(self.limit)


class GradwatchClipAlways(GradwatchClip):
    """The same with a limit that is always reached."""

    def step(self) -> None:
        self.monitor.clip_grad_norm_(falling_limit(self.count))
        self.count += 1


def falling_limit(step: int) -> float:
    """Far below any gradient here, and half of itself at each of ten steps, after which the gradients are restored."""
    return float(1e-3 / 2 ** (step % 10))
