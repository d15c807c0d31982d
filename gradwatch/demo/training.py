"""One plain training loop under gw.watch, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gradwatch as gw
from gradwatch.demo.data import Digits
from gradwatch.protocols import ClipPolicy
from gradwatch.sinks import TensorBoard


@dataclass(frozen=True)
class Run:
    """What happened to one network."""

    name: str
    report: gw.Report
    history: gw.History
    losses: list[float]
    """Of each batch."""
    train_loss: float
    train_accuracy: float
    test_accuracy: float


def train(
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    digits: Digits,
    *,
    steps: Iterable[int],
    seed: int,
    logdir: Path,
    batch_size: int,
    clip: ClipPolicy | None = None,
) -> Run:
    """Train ``model`` for as many batches as there are ``steps``; the same ``seed`` gives the same batches."""
    batches = torch.Generator().manual_seed(seed)
    losses = []
    with (
        one_thread(),
        gw.watch(
            model, optimizer, clip=clip, histogram_every_n_steps=20, sinks=[TensorBoard(logdir, scalars_every=20)]
        ) as monitor,
    ):
        for _ in steps:
            batch = torch.randint(len(digits.train_labels), (batch_size,), generator=batches)
            loss = cross_entropy(model(digits.train_images[batch]), digits.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        train_scores, test_scores = model(digits.train_images), model(digits.test_images)
    return Run(
        name,
        monitor.report(),
        monitor.history,
        losses,
        train_loss=float(cross_entropy(train_scores, digits.train_labels)),
        train_accuracy=float((train_scores.argmax(dim=1) == digits.train_labels).float().mean()),
        test_accuracy=float((test_scores.argmax(dim=1) == digits.test_labels).float().mean()),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small spend more time handing work to a second thread than doing it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
