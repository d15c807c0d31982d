"""Nothing outlives its user: a monitor keeps numbers, and neither the model nor its gradients."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.integrations.lightning import GradientMonitor

SETTINGS: dict[str, Any] = {"histogram_every_n_steps": 1, "sinks": (), "strict": True}


class Alive:
    """Weak references to all that training is made of, by name."""

    def __init__(self) -> None:
        self._seen: dict[str, weakref.ref[Any]] = {}

    def note(self, model: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> None:
        parts = {"model": model, "optimizer": optimizer, **more, **dict(model.named_modules())}
        for name, p in model.named_parameters():
            parts |= {name: p, f"gradient of {name}": p.grad}
        self._seen = {name or "model": weakref.ref(part) for name, part in parts.items() if part is not None}

    def left(self) -> list[str]:
        """Those that are still there."""
        gc.collect()
        return [name for name, reference in self._seen.items() if reference() is not None]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 600), nn.Tanh(), nn.Linear(600, 1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, ready: Callable[[], Any], steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        ready()
        optimizer.step()


def by_hand(**arguments: Any) -> tuple[gw.Monitor, Alive]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    monitor = gw.Monitor(model, **SETTINGS, **arguments)
    train(model, optimizer, monitor.step)
    alive = Alive()
    alive.note(model, optimizer)
    return monitor, alive


def by_hand_with_the_optimizer() -> tuple[gw.Monitor, Alive]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    monitor = gw.Monitor(model, optimizer=optimizer, **SETTINGS)
    train(model, optimizer, monitor.step)
    alive = Alive()
    alive.note(model, optimizer)
    return monitor, alive


def by_clipping() -> tuple[gw.Monitor, Alive]:
    return by_hand(clip=gw.clipping.GlobalNorm(1e-3))


def by_hooks() -> tuple[gw.Monitor, Alive]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    monitor = gw.watch(model, optimizer, **SETTINGS)
    train(model, optimizer, lambda: None)
    alive = Alive()
    alive.note(model, optimizer)
    return monitor, alive


def by_hooks_with_a_scaler() -> tuple[gw.Monitor, Alive]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    monitor = gw.watch(model, optimizer, scaler=scaler, **SETTINGS)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(8, 4)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    alive = Alive()
    alive.note(model, optimizer)
    return monitor, alive


def by_lightning() -> tuple[gw.Monitor, Alive]:
    callback, alive = fitted()
    return callback.monitor, alive


def fitted() -> tuple[GradientMonitor, Alive]:
    class Module(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

        def train_dataloader(self) -> Iterator[Tensor]:
            return torch.randn(3, 8, 4)

    callback, module = GradientMonitor(**SETTINGS), Module()
    trainer = pytorch_lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit(module)
    alive = Alive()
    alive.note(module, trainer.optimizers[0], trainer=trainer)
    return callback, alive


WAYS = [by_hand, by_hand_with_the_optimizer, by_clipping, by_hooks, by_hooks_with_a_scaler, by_lightning]


@pytest.mark.parametrize("way", WAYS)
def test_a_monitor_that_is_kept_keeps_nothing_alive(way: Callable[[], tuple[gw.Monitor, Alive]]) -> None:
    monitor, alive = way()
    monitor.close()
    assert alive.left() == []
    assert len(monitor.history) == 3
    assert monitor.report().verdict.startswith("healthy")


@pytest.mark.parametrize("way", WAYS)
def test_nor_does_one_that_is_never_closed(way: Callable[[], tuple[gw.Monitor, Alive]]) -> None:
    monitor, alive = way()
    assert alive.left() == []
    assert len(monitor.history) == 3


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_when_all_is_dropped(way: Callable[[], tuple[gw.Monitor, Alive]]) -> None:
    monitor, alive = way()
    reference = weakref.ref(monitor)
    del monitor
    assert alive.left() == []
    assert reference() is None


def test_a_callback_that_is_kept_keeps_nothing_alive() -> None:
    callback, alive = fitted()
    assert alive.left() == []
    assert len(callback.monitor.history) == 3


def test_tensors_do_not_add_up() -> None:
    """As many of them after 30 steps as after 5."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    counts = []
    with gw.watch(model, optimizer, clip=gw.clipping.GlobalNorm(1e-3), **SETTINGS):
        for steps in (5, 25):
            train(model, optimizer, lambda: None, steps)
            gc.collect()
            counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert counts[0] == counts[1]


def test_a_step_that_raises_keeps_nothing_alive() -> None:
    def attempt() -> Alive:
        model = network()
        optimizer = torch.optim.AdamW(model.parameters())
        gw.watch(model, optimizer, **SETTINGS)
        train(model, optimizer, lambda: None)
        alive = Alive()
        alive.note(model, optimizer)
        with pytest.raises(ZeroDivisionError):
            train(model, optimizer, lambda: 1 / 0)
        return alive

    assert attempt().left() == []
