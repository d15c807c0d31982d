"""A training script for Lightning on two processes: ``python lightning_script.py STRATEGY DIRECTORY``.

A file to be run and not a module of the launcher, as Lightning starts the second process by running the script again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import gradwatch as gw
from gradwatch.integrations.lightning import GradientMonitor
from tests.matrix.workers.training import ROWS, TRAININGS
from tests.matrix.workers.watched import gathered, listed, seen

NET = TRAININGS["net"]


class Rows(Dataset[tuple[Tensor, Tensor, int]]):
    """The rows of all batches. Each of two ranks is given every second one."""

    def __len__(self) -> int:
        return NET.steps * ROWS

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        x, y = NET.batch(index // ROWS)
        return x[index % ROWS].float(), y[index % ROWS].float(), index % ROWS


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = NET.model()

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and self.device_mesh is not None:
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y, row = batch
        return (self.net(x, row) - y).square().mean()

    def train_dataloader(self) -> DataLoader[Any]:
        world, rank = self.trainer.world_size, self.trainer.global_rank  # Lightning's own sampler would shuffle
        sampler = DistributedSampler(Rows(), world, rank, shuffle=False)
        return DataLoader(Rows(), batch_size=ROWS // world, sampler=sampler)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return NET.optimizer(self.net)


class Save(pl.Callback):
    """Writes what this rank's monitor knows: in the end, or the process that called fit() would not have it."""

    def __init__(self, directory: Path, monitor: GradientMonitor) -> None:
        self.directory, self.callback = directory, monitor

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.callback.monitor is not None
        parameters = {name: listed(p)[0] for name, (p, _) in gathered(pl_module).items()}
        result = seen(self.callback.monitor) | {"parameters": parameters}
        (self.directory / f"rank {trainer.global_rank}.json").write_text(json.dumps(result))


def main(strategy: str, directory: Path) -> None:
    monitor = GradientMonitor(
        clip=gw.clipping.GlobalNorm(NET.max_norm), sinks=[gw.sinks.JSONL(directory / "lines.jsonl")], strict=True
    )
    after_it = GradientMonitor(rules=(), strict=True)  # writes to the Trainer's logger
    strategies: dict[str, Any] = {"model_parallel": ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)}
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategies.get(strategy, strategy),
        max_epochs=1,
        callbacks=[monitor, after_it, Save(directory, monitor)],
        logger=TensorBoardLogger(directory, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(Module())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
