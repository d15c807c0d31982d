"""Monitors in a real Trainer of Lightning: the cost of a training loop with them, less that of the same without.

The loop is Lightning's own, with a TensorBoardLogger that writes at every step. The module computes nothing: it leaves
the gradients as they are, for forward, backward and update are the same with and without, and noisier than what is to
be measured.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import grad_norm

import gradwatch as gw
from benchmarks.monitors import Monitor
from benchmarks.timing import difference
from benchmarks.workloads import Workload
from gradwatch.integrations.lightning import GradientMonitor
from gradwatch.monitor import FIRST_STEPS

WARM_UP = FIRST_STEPS + 1
"""Steps of a Trainer before the clock is started: those at the start of a run that gradwatch looks at more closely, and
one after them, which still compares its parameters with theirs. Elsewhere a monitor is well past them when it is
measured."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's lines on what hardware there is, which come with every Trainer."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


class InTrainer(Monitor):
    """A Trainer with nothing added; the others say what they add."""

    def cost(self, steps: int) -> float:
        return difference(lambda added: self.train(steps, added))

    def train(self, steps: int, added: bool) -> float:
        """CPU ms per step of a Trainer, with what is to be measured ``added`` or without."""
        self.count += 1
        logger = TensorBoardLogger(self.directory, version=self.count)
        clock = Clock(steps, logger)
        with quiet():
            trainer = pl.Trainer(
                accelerator="cpu",
                max_epochs=1,
                logger=logger,
                log_every_n_steps=1,
                callbacks=[clock, *(self.callbacks(logger) if added else ())],
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
            )
            module = self.module() if added else Still(self.workload)
            trainer.fit(module, torch.zeros(WARM_UP + steps + 1, 1))  # that many batches of one
        return clock.ms_per_step

    def module(self) -> Still:
        """The module to train."""
        return Still(self.workload)

    def callbacks(self, logger: TensorBoardLogger) -> list[pl.Callback]:
        """The Trainer's callbacks."""
        return []


class LogDict(InTrainer):
    """``self.log_dict(grad_norm(self, norm_type=2))`` in ``on_before_optimizer_step``, as Lightning's pages say."""

    def module(self) -> Still:
        return Logging(self.workload)


class Callback(InTrainer):
    """gradwatch's GradientMonitor, with the norms of every parameter in the Trainer's logger."""

    def callbacks(self, logger: TensorBoardLogger) -> list[pl.Callback]:
        sinks = [gw.sinks.TensorBoard(logger.experiment)]  # what it takes by itself, without the Console
        every = self.histogram_every
        return [GradientMonitor(sinks=sinks, histogram_every_n_steps=every, granularity="parameter", strict=True)]


class Still(pl.LightningModule):
    """A module that keeps the gradients its parameters have."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.model = workload.model

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        return torch.zeros((), requires_grad=True)

    def backward(self, loss: torch.Tensor) -> None:
        """The gradients are there."""

    def optimizer_zero_grad(self, epoch: int, batch_index: int, optimizer: torch.optim.Optimizer) -> None:
        """And stay."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Also when the Trainer starts."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return StillOptimizer(self.parameters(), {})


class Logging(Still):
    """The same, logging its norms."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.log_dict(grad_norm(self, norm_type=2))


class StillOptimizer(torch.optim.Optimizer):
    """Calls the closure, in which Lightning does the rest, and updates nothing."""

    def step(self, closure: Any = None) -> Any:
        return None if closure is None else closure()


class Clock(pl.Callback):
    """CPU time of the steps between the warm-up and the last batch, with all that they left to be written."""

    def __init__(self, steps: int, logger: TensorBoardLogger) -> None:
        self.steps, self.logger = steps, logger
        self.ms_per_step = float("nan")
        self._start = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        if index in (WARM_UP, WARM_UP + self.steps):
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, GradientMonitor):
                    callback.monitor.flush()
            self.logger.experiment.flush()
            now = time.process_time()
            self.ms_per_step, self._start = 1e3 * (now - self._start) / self.steps, now
