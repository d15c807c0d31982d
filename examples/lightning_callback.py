"""A learning rate that kills a network, and the clipping that saves it: the Lightning callback on handwritten digits.

    python examples/lightning_callback.py

The same network is trained twice with a learning rate that is too large for it. Unclipped, the gradient's norm
is 34 at step 38, 130 times its median, and the updates that it makes leave ReLU units that are zero for every digit: by
step 94 the first two layers have had a gradient of exactly zero for 50 steps, by step 120 all four hidden ones, and the
network guesses (9.4% of the digits are right). Clipped to a norm of 0.5 it meets the same rough patch, with gradients
of up to 7.7, and reaches 94.6%. Other seeds tell the same story with other numbers.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import gradwatch as gw
from gradwatch.integrations.lightning import GradientMonitor

MAX_NORM = 0.5


class Digits(LightningModule):
    """Four hidden ReLU layers, from 8 x 8 pixels to ten digits."""

    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        hidden = [layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.ReLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 10))
        self.learning_rate = learning_rate

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, digits = batch
        return nn.functional.cross_entropy(self.net(images), digits)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, digits = batch
        self.log("accuracy", (self.net(images).argmax(1) == digits).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.9)


def train(name: str, clip: gw.clipping.ClipPolicy | None, args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    images, digits = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
    training, test = random_split(data, [1500, len(data) - 1500])

    # The one line that a Trainer needs. What the monitor sees goes to the console and into the Trainer's own logger.
    callback = GradientMonitor(clip=clip)
    trainer = Trainer(
        callbacks=callback,
        logger=TensorBoardLogger(args.logdir, name="", version=name),
        accelerator="cpu",
        max_steps=args.steps,
        max_epochs=-1,
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Digits(learning_rate=0.4)
    trainer.fit(module, DataLoader(training, batch_size=64, shuffle=True))
    (result,) = trainer.test(module, DataLoader(test, batch_size=len(test)), verbose=False)

    norms = callback.monitor.history.total_norm
    print(f"\n== {name}: accuracy {result['accuracy']:.1%} ==")
    print(f"total gradient norm: median {np.median(norms):.2g}, largest {norms.max():.3g}")
    if clip is not None:
        print(f"clipped: {(norms > MAX_NORM).mean():.0%} of the last {len(norms)} steps")
    print(callback.monitor.report())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logdir", default="runs/lightning_callback")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)  # layers this small are fastest on one, and the numbers below can be repeated
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # it would rather have worker processes

    train("unclipped", None, args)
    train("clipped", gw.clipping.GlobalNorm(MAX_NORM), args)
    print(f"\ntensorboard --logdir {args.logdir}")


if __name__ == "__main__":
    main()
