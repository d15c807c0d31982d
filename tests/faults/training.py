"""What all faults happen to: a small training that is the same at every run, and the three kinds of files it writes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import gradwatch as gw
from gradwatch import tags


class Training:
    """A regression with momentum, whose batch depends on the number of the step alone."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.steps = 0

    def backward(self) -> None:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(self.steps))
        self.optimizer.zero_grad()
        (self.model(x) - x.sum(dim=1, keepdim=True)).square().mean().backward()

    def update(self) -> None:
        self.optimizer.step()
        self.steps += 1

    def run(self, steps: int, monitor: gw.Monitor | None = None) -> Training:
        """Train until ``steps`` steps are done, with ``monitor.step()`` in the loop where one is given."""
        while self.steps < steps:
            self.backward()
            if monitor is not None:
                monitor.step()
            self.update()
        return self

    def total_norm(self) -> float:
        """The norm of all gradients by NumPy in float64."""
        return float(np.sqrt(sum(np.square(p.grad.numpy(), dtype=np.float64).sum() for p in self.model.parameters())))

    def state(self) -> bytes:
        """The bits of the parameters and of the optimizer's momentum."""
        tensors = [p.detach() for p in self.model.parameters()]
        tensors += [s["momentum_buffer"] for s in self.optimizer.state_dict()["state"].values()]
        return b"".join(tensor.numpy().tobytes() for tensor in tensors)


@cache
def unwatched(steps: int) -> bytes:
    """The state after ``steps`` steps that nobody watched."""
    return Training().run(steps).state()


@cache
def total_norms(steps: int) -> tuple[float, ...]:
    """The total norm of each step by NumPy in float64."""
    training, found = Training(), []
    while training.steps < steps:
        training.backward()
        found.append(training.total_norm())
        training.update()
    return tuple(found)


class Kind(NamedTuple):
    """One way to write to disk, and its own reader."""

    sink: Callable[[Path], gw.sinks.Sink]
    """Makes a sink that writes into a directory."""
    read: Callable[[Path], Iterable[tuple[int, float]]]
    """The steps in a directory as they were written, and the total norms."""
    behind: int = 0
    """Steps that may be on their way when a run is killed: a SummaryWriter has a queue of 10."""


def jsonl(directory: Path) -> Iterator[tuple[int, float]]:
    with (directory / "gradients.jsonl").open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            stats = json.loads(line)["stats"]
            yield stats["step"], stats["total_norm"]


def event_files(directory: Path) -> Iterator[tuple[int, float]]:
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    if tags.TOTAL_NORM in events.Tags()["scalars"]:
        for event in events.Scalars(tags.TOTAL_NORM):
            yield event.step, event.value


KINDS = {
    "JSONL": Kind(lambda directory: gw.sinks.JSONL(directory / "gradients.jsonl"), jsonl),
    "TensorBoard": Kind(gw.sinks.TensorBoard, event_files),
    "SummaryWriter": Kind(lambda directory: gw.sinks.TensorBoard(SummaryWriter(directory)), event_files, behind=12),
}
OWN = ("JSONL", "TensorBoard")
"""Those whose file is gradwatch's own."""


def dropped(kind: str) -> str:
    """How the warning begins when a sink of that kind fails."""
    return f"gradwatch: sink {'JSONL' if kind == 'JSONL' else 'TensorBoard'} failed, it is dropped"


def assert_readable(kind: str, directory: Path, steps: Iterable[int]) -> None:
    """The files in ``directory`` hold ``steps`` and no others, in order and with their norms."""
    expected = list(steps)
    found = list(KINDS[kind].read(directory))
    assert [step for step, _ in found] == expected
    norms = total_norms(max(expected, default=0) + 1)
    np.testing.assert_allclose([norm for _, norm in found], [norms[step] for step in expected], rtol=1e-6)


@contextmanager
def warned(caught: list[str]) -> Iterator[None]:
    """Collect the text of every warning, whatever its kind."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            caught += [f"{warning.category.__name__}: {warning.message}" for warning in found]


class Outcome(NamedTuple):
    """How a training in another process ended."""

    state: bytes
    warnings: list[str]
    recorded: int
    """Steps that another sink of the same monitor got."""
    more: Any = None
