"""Norms in every precision, and of gradients that a gradient scaler has multiplied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.faults import GradwatchWarning
from gradwatch.integrations.lightning import GradientMonitor
from gradwatch.records import AFTER_CLIPPING, BEFORE_CLIPPING
from tests.matrix.reference import Loss, assert_norms, losses, network, norms_now, twin_norms
from tests.matrix.table import Group

cell = Group("Precision")

QUIET: dict[str, Any] = {"sinks": (), "strict": True}


@cell("bfloat16 parameters", within=1e-2)
@cell("float16 parameters", within=1e-3)
@cell("float32 parameters", within=1e-6)
@cell("float64 parameters", within=1e-14)
@pytest.mark.parametrize(
    ("dtype", "within"),
    [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)],
)
def test_parameters(dtype: torch.dtype, within: float) -> None:
    """Nearer than half precision itself is what the optimizer uses: those gradients are measured to 1e-6."""
    model = network(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gw.watch(model, optimizer, **QUIET) as monitor:
        for loss in losses(5):
            truth = twin_norms(model, [loss])
            optimizer.zero_grad()
            loss(model).backward()
            used = norms_now(model)
            optimizer.step()
            assert_norms(monitor, used, within=min(within, 1e-6))
            assert_norms(monitor, truth, within)
    assert len(monitor.history) == 5


@cell("float16 autocast", within=1e-3)
@cell("bfloat16 autocast", within=1e-2)
@pytest.mark.parametrize(("dtype", "within"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_autocast(dtype: torch.dtype, within: float) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with gw.watch(model, optimizer, **QUIET) as monitor:
        for loss in losses(5):
            truth = twin_norms(model, [loss])
            optimizer.zero_grad()
            autocast(loss, dtype)(model).backward()
            used = norms_now(model)
            optimizer.step()
            assert_norms(monitor, used)
            assert_norms(monitor, truth, within)
    assert len(monitor.history) == 5


def autocast(loss: Loss, dtype: torch.dtype) -> Loss:
    def under_autocast(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", dtype):
            return loss(model)

    return under_autocast


class Way(NamedTuple):
    """How a loop with a GradScaler lets gradwatch see the gradients."""

    loop: str
    watched: bool = False
    """By hooks on the optimizer."""
    calls: bool = False
    """By the loop's own call, which the hooks leave alone."""
    fused: bool = False
    unscales: bool = False
    needs_scaler: bool = False
    """The true gradients cannot be known without ``scaler=``."""


WAYS = {
    way.loop: way
    for way in (
        Way("unscale_(), then monitor.step()", calls=True, unscales=True),
        Way("monitor.step() before unscaling", calls=True, needs_scaler=True),
        Way("monitor.step(), fused AdamW", calls=True, fused=True, needs_scaler=True),
        Way("watch()", watched=True),
        Way("watch() and unscale_()", watched=True, unscales=True),
        Way("watch() and monitor.step() before unscaling", watched=True, calls=True, needs_scaler=True),
        Way("watch(), fused AdamW", watched=True, fused=True),
        Way("watch(), fused AdamW and unscale_()", watched=True, fused=True, unscales=True),
    )
}


class Scaled:
    """Training with a GradScaler, in one of the ways."""

    def __init__(self, way: Way, scaler: torch.amp.GradScaler, given: bool = True, **arguments: Any) -> None:
        self.way, self.scaler = way, scaler
        self.model = network()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, fused=way.fused)
        arguments = {**QUIET, "scaler": scaler if given else None, **arguments}
        if way.watched:
            self.monitor = gw.watch(self.model, self.optimizer, **arguments)
        else:
            self.monitor = gw.Monitor(self.model, **arguments)

    def step(self, loss: Loss, poison: Callable[[nn.Module], None] = lambda model: None) -> dict[str, float]:
        """One step. Returns the norms of the gradients as they are without the scale."""
        self.optimizer.zero_grad()
        self.scaler.scale(loss(self.model)).backward()
        poison(self.model)
        scale = self.scaler.get_scale()
        norms = {name: norm / scale for name, norm in norms_now(self.model).items()}
        if self.way.unscales:
            self.scaler.unscale_(self.optimizer)
        if self.way.calls:
            self.monitor.step()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norms


def overflow(*layers: str) -> Callable[[nn.Module], None]:
    """What happens where the scale is too high, in the layers named."""

    def poison(model: nn.Module) -> None:
        for name in layers:
            gradient = model.get_submodule(name).weight.grad
            assert isinstance(gradient, Tensor)
            gradient[0, 0] = float("inf")

    return poison


def scaler_of(**arguments: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", **arguments)


@contextmanager
def trained(way: str, **arguments: Any) -> Iterator[Scaled]:
    """Training that ends with its monitor closed."""
    run = Scaled(WAYS[way], **arguments)
    with run.monitor:
        yield run


every_way = pytest.mark.parametrize("way", WAYS)


def each_way(case: str, **answer: Any) -> Callable[[Any], Any]:
    """A row of the table for each of the ways."""

    def noted(test: Any) -> Any:
        for way in WAYS:
            cell(f"GradScaler, {way}{case}", **answer)(test)
        return every_way(test)

    return noted


@each_way("", within=1e-6)
def test_a_gradient_scaler(way: str) -> None:
    with trained(way, scaler=scaler_of(init_scale=1024.0)) as run:
        for loss in losses(4):
            truth = twin_norms(run.model, [loss])
            scaled = run.step(loss)
            assert_norms(run.monitor, truth)
            assert_norms(run.monitor, scaled)
    assert len(run.monitor.history) == 4
    stats = run.monitor.history.latest
    assert stats is not None
    assert stats.captured == (BEFORE_CLIPPING if run.way.calls else AFTER_CLIPPING)
    assert run.monitor.alerts == []


@each_way(", the scale grows", within=1e-6)
def test_a_growing_scale(way: str) -> None:
    with trained(way, scaler=scaler_of(init_scale=8.0, growth_interval=2)) as run:
        for loss in losses(7):
            truth = twin_norms(run.model, [loss])
            run.step(loss)
            assert_norms(run.monitor, truth)
        assert run.scaler.get_scale() == 64.0
    assert run.monitor.alerts == []


@each_way(", a step that the scaler skips")
def test_a_skipped_step(way: str) -> None:
    with trained(way, scaler=scaler_of(init_scale=1024.0)) as run:
        for i, loss in enumerate(losses(5)):
            truth = twin_norms(run.model, [loss])
            before = [p.detach().clone() for p in run.model.parameters()]
            run.step(loss, overflow("fc1", "fc2") if i == 2 else overflow())
            assert all(torch.equal(p, b) for p, b in zip(run.model.parameters(), before)) == (i == 2)
            if i == 2:
                truth |= {"fc1": float("inf"), "fc2": float("inf")}
            assert_norms(run.monitor, truth)
    assert run.monitor.history.skipped.tolist() == [False, False, True, False, False]
    (alert,) = run.monitor.alerts
    assert (alert.rule, alert.step, alert.severity) == ("skipped", 2, gw.Severity.INFO)
    assert alert.message.startswith("fc2, fc1: the gradient overflowed at this loss scale")
    assert run.monitor.report().verdict == (
        "healthy: 5 steps, 3 layers, 1 step skipped by the gradient scaler, no alert"
    )


@each_way(", no scale is small enough")
def test_a_model_that_no_scale_can_help(way: str) -> None:
    (loss,) = losses(1)
    with trained(way, scaler=scaler_of(init_scale=1024.0)) as run:
        for _ in range(42):
            run.step(loss, overflow("fc3"))
    assert run.monitor.history.skipped.tolist() == [True] * 42
    assert [(a.step, a.rule, a.layer, a.severity) for a in run.monitor.alerts] == [
        (0, "skipped", "fc3", gw.Severity.INFO),
        (39, "skipped", "fc3", gw.Severity.ERROR),
    ]
    assert run.monitor.report().verdict == "skipped: fc3 (1 of 3 layers)"


@cell("GradScaler and float16 autocast, the first scales too high for float16", within=1e-3)
@every_way
def test_the_search_for_a_scale(way: str) -> None:
    """In float16 everything above 65504 overflows: the scaler halves its scale until nothing does."""
    with trained(way, scaler=scaler_of(init_scale=2.0**24)) as run:
        taken, shown = [], []
        for loss in losses(16):
            truth, scale = twin_norms(run.model, [loss]), run.scaler.get_scale()
            scaled = run.step(autocast(loss, torch.float16))
            taken.append(run.scaler.get_scale() == scale)
            shown.append(sorted((name for name, norm in scaled.items() if not np.isfinite(norm)), reverse=True))
            if taken[-1]:
                assert_norms(run.monitor, truth, within=1e-3)
    skipped = [not step for step in taken]
    assert 2 < sum(skipped) < 14
    assert run.monitor.history.skipped.tolist() == skipped
    first = [i for i, skip in enumerate(skipped) if skip and not any(skipped[i - 1 : i])]
    assert [(a.step, a.rule, a.severity) for a in run.monitor.alerts] == [
        (i, "skipped", gw.Severity.INFO) for i in first
    ]
    for alert, i in zip(run.monitor.alerts, first):
        assert alert.message.split(": ")[0] == ", ".join(shown[i])
    assert f"{sum(skipped)} steps skipped" in run.monitor.report().verdict


def untold(way: str) -> gw.Monitor:
    """Five steps, of which the scaler skips the third; the monitor is not told of the scaler."""
    with trained(way, scaler=scaler_of(init_scale=1024.0), given=False) as run:
        for i, loss in enumerate(losses(5)):
            truth = twin_norms(run.model, [loss])
            run.step(loss, overflow("fc1", "fc2") if i == 2 else overflow())
            if i != 2:
                assert_norms(run.monitor, truth)
    return run.monitor


@cell(
    "GradScaler, watch() without scaler=, a step that the scaler skips",
    unknown="it never comes to the optimizer, and is not recorded",
)
@pytest.mark.parametrize("way", ["watch()", "watch() and unscale_()"])
def test_hooks_without_the_scaler(way: str) -> None:
    monitor = untold(way)
    assert monitor.history.steps.tolist() == [0, 1, 2, 3]
    assert monitor.alerts == []


@cell("GradScaler, watch() of fused AdamW without scaler=", within=1e-6)
@pytest.mark.parametrize("way", ["watch(), fused AdamW", "watch(), fused AdamW and unscale_()"])
def test_hooks_of_a_fused_optimizer_without_the_scaler(way: str) -> None:
    """The scaler leaves its scale and what it found on the optimizer."""
    monitor = untold(way)
    assert monitor.history.skipped.tolist() == [False, False, True, False, False]
    assert [(a.step, a.rule) for a in monitor.alerts] == [(2, "skipped")]


@cell(
    "GradScaler, unscale_() and then monitor.step() without scaler=, a step that the scaler skips",
    unknown="it is shown as not finite",
)
def test_unscaled_gradients_without_the_scaler() -> None:
    monitor = untold("unscale_(), then monitor.step()")
    assert not monitor.history.skipped.any()
    assert monitor.alerts[0].message == "fc2, fc1: gradient is inf"
    assert (monitor.alerts[0].step, monitor.alerts[0].rule) == (2, "nonfinite")


@cell(
    "GradScaler, monitor.step() before unscaling without scaler=",
    unknown="the norms are those of the scaled gradients; a warning at the second step says so, and to pass scaler=",
)
@pytest.mark.parametrize("way", [name for name, way in WAYS.items() if way.needs_scaler])
def test_scaled_gradients_without_the_scaler(way: str) -> None:
    (loss,) = losses(1)
    with trained(way, scaler=scaler_of(init_scale=1024.0), given=False, strict=False) as run:
        truth = twin_norms(run.model, [loss])
        run.step(loss)
        assert_norms(run.monitor, {name: 1024.0 * norm for name, norm in truth.items()})
        with pytest.warns(GradwatchWarning, match="GradScaler.*scaler="):  # that it is at work shows between two steps
            run.step(loss)
        run.step(loss)  # once is enough


class Wrapper:
    """Around an optimizer, as Lookahead; the scaler knows it by its own name alone."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def step(self) -> None:
        self.optimizer.step()


@cell("GradScaler, unscale_() of a wrapped optimizer and then monitor.step()", within=1e-6)
def test_a_wrapped_optimizer() -> None:
    model, scaler = network(), scaler_of(init_scale=1024.0)
    optimizer = Wrapper(torch.optim.SGD(model.parameters(), lr=0.05))
    with gw.watch(model, optimizer, scaler=scaler, **QUIET) as monitor:  # type: ignore[arg-type]
        for i, loss in enumerate(losses(3)):
            truth = twin_norms(model, [loss])
            model.zero_grad()
            scaler.scale(loss(model)).backward()
            scaler.unscale_(optimizer)  # type: ignore[arg-type]
            monitor.step()
            scaler.step(optimizer)  # type: ignore[arg-type]
            scaler.update()
            assert len(monitor.history) == i + 1
            assert_norms(monitor, truth)


@cell("GradScaler that also steps what is no torch optimizer", within=1e-6)
def test_a_scaler_with_another_kind_of_optimizer() -> None:
    class Own:
        def __init__(self, model: nn.Module) -> None:
            self.param_groups = [{"params": list(model.parameters())}]

        @torch.no_grad()
        def step(self) -> None:
            for p in self.param_groups[0]["params"]:
                p.sub_(0.1 * p.grad)

    model, other, scaler = network(), network(), scaler_of(init_scale=1024.0)
    optimizer, own = torch.optim.SGD(model.parameters(), lr=0.05), Own(other)
    with gw.watch(model, optimizer, scaler=scaler, **QUIET) as monitor:
        (loss,) = losses(1)
        truth, before = twin_norms(model, [loss]), other.fc1.weight.detach().clone()
        scaler.scale(loss(model) + loss(other)).backward()
        gradient = other.fc1.weight.grad / 1024.0
        scaler.step(own)  # type: ignore[arg-type]
        scaler.step(optimizer)
        scaler.update()
        assert_norms(monitor, truth)
        assert torch.equal(other.fc1.weight, before - 0.1 * gradient)


@cell("Lightning, 16-mixed with a GradScaler and fused AdamW, a step that it skips", within=1e-3)
@cell("Lightning, 16-mixed with a GradScaler, a step that it skips", within=1e-3)
@pytest.mark.parametrize("fused", [False, True])
def test_lightning(fused: bool) -> None:
    """The monitor is not given the scaler: the Trainer has it."""
    pl = pytest.importorskip("pytorch_lightning")
    net = network()

    class Module(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss = losses(5)[batch_idx]
            self.truth = twin_norms(self, [lambda module: loss(module.net)])
            return loss(net)

        def on_after_backward(self) -> None:
            if self.global_step == 2:
                overflow("fc1", "fc2")(net)
                self.truth |= {"net.fc1": float("inf"), "net.fc2": float("inf")}

        def on_train_batch_end(self, *_: Any) -> None:
            assert_norms(callback.monitor, self.truth, within=1e-3)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(net.parameters(), lr=0.01, fused=fused)

        def train_dataloader(self) -> Tensor:
            return torch.zeros(5)

    callback = GradientMonitor(**QUIET)
    scaler = pl.plugins.MixedPrecision("16-mixed", "cpu", scaler_of(init_scale=1024.0))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, plugins=[scaler], callbacks=[callback], **quiet)
    trainer.fit(Module())
    assert callback.monitor.history.skipped.tolist() == [False, False, True, False, False]
    (alert,) = callback.monitor.alerts
    assert (alert.rule, alert.step, alert.severity) == ("skipped", 2, gw.Severity.INFO)
    assert alert.message.startswith("net.fc2, net.fc1: the gradient overflowed")
