"""What a user would pick instead, where it works on the gradients as they are at the optimizer's step."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.monitors import Monitor
from benchmarks.workloads import Workload


class Writer(Monitor):
    """What uses torch's SummaryWriter."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 0) -> None:
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


class LightningFunction(Monitor):
    """Lightning's ``grad_norm`` and one ``log_metrics`` of its TensorBoardLogger; it has no histograms."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 0) -> None:
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
        self.logger.experiment.close()


class Ignite(Monitor):
    """Ignite's GradsScalarHandler at every step and GradsHistHandler on sampled steps."""

    def __init__(self, workload: Workload, directory: Path, histogram_every: int = 0) -> None:
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
