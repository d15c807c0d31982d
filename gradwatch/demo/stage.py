"""The stage on which a story is told: the data, the settings, and one way to let a network train and show the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from gradwatch.demo.data import Digits, digits
from gradwatch.demo.screen import show
from gradwatch.demo.training import Run, train
from gradwatch.protocols import ClipPolicy


@dataclass(frozen=True)
class Stage:
    """The settings of one telling; each run writes to ``logdir/name-of-the-run``."""

    logdir: Path
    steps: int = 300
    seed: int = 0
    console: Console = field(default_factory=lambda: Console(highlight=False))
    digits: Digits = field(default_factory=digits)

    def run(
        self,
        name: str,
        build: Callable[[], nn.Module],
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        *,
        clip: ClipPolicy | None = None,
        batch_size: int = 128,
    ) -> tuple[Run, nn.Module]:
        """Build a network from the seed, train it, and show what happened."""
        torch.manual_seed(self.seed)
        model = build()
        run = train(
            name,
            model,
            optimizer(model),
            self.digits,
            steps=track(range(self.steps), description=f"{name:<16}", console=self.console),
            seed=self.seed,
            logdir=replaced(self.logdir / name.replace(" ", "_")),
            batch_size=batch_size,
            clip=clip,
        )
        show(run, self.console)
        return run, model


def replaced(directory: Path) -> Path:
    """``directory`` without the event files of an earlier telling: TensorBoard would draw both over each other."""
    for file in directory.glob("events.out.tfevents.*.gradwatch"):
        file.unlink()
    return directory
