"""Clipping by the user: what was measured, the gradients before it or after it, and whether that is said."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.integrations.lightning import GradientMonitor
from gradwatch.records import AFTER_CLIPPING, BEFORE_CLIPPING
from tests.matrix.reference import assert_norms, losses, network, norms_now, total_of, twin_norms
from tests.matrix.table import Group

cell = Group("Clipping by the user")

QUIET: dict[str, Any] = {"sinks": (), "strict": True}
LIMIT = 0.5
"""Every step of these loops is above it."""

Clip = Callable[[nn.Module], Any]


def by_norm(model: nn.Module) -> Any:
    return nn.utils.clip_grad_norm_(model.parameters(), LIMIT)


def by_value(model: nn.Module) -> Any:
    return nn.utils.clip_grad_value_(model.parameters(), 1e-3)


def no_clip(model: nn.Module) -> None:
    pass


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int = 30,
    before: Callable[[], Any] = lambda: None,
    clip: Clip = no_clip,
    seen: Callable[[dict[str, float], dict[str, float]], None] = lambda truth, used: None,
) -> None:
    """The loop of a user who clips. ``seen`` gets the norms of the float64 twin and those that the optimizer used."""
    for loss in losses(steps):
        truth = twin_norms(model, [loss])
        assert total_of(truth) > LIMIT
        optimizer.zero_grad()
        loss(model).backward()
        before()
        clip(model)
        used = norms_now(model)
        optimizer.step()
        seen(truth, used)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def captured(monitor: gw.Monitor) -> str:
    """Before or after clipping."""
    stats = monitor.history.latest
    assert stats is not None
    return stats.captured


SEEN_CLIPPED = "Measured  as the optimizer used them: after any clipping of your own"


def rules_of(monitor: gw.Monitor) -> list[str]:
    return [alert.rule for alert in monitor.alerts]


# -- which gradients were measured -----------------------------------------------------------------------------------


@cell("watch(), the user clips values: the clipped gradients, and the report says so", within=1e-6)
@cell("watch(), the user clips norms: the clipped gradients, and the report says so", within=1e-6)
@pytest.mark.parametrize("clip", [by_norm, by_value])
def test_hooks_see_what_was_clipped(clip: Clip) -> None:
    model = network()
    optimizer = sgd(model)
    with gw.watch(model, optimizer, **QUIET) as monitor:

        def seen(truth: dict[str, float], used: dict[str, float]) -> None:
            assert total_of(used) < 0.7 * total_of(truth)
            assert_norms(monitor, used)

        train(model, optimizer, steps=5, clip=clip, seen=seen)
    assert captured(monitor) == AFTER_CLIPPING
    assert SEEN_CLIPPED in str(monitor.report())


@cell("monitor.step() before the user clips values", within=1e-6)
@cell("monitor.step() before the user clips norms", within=1e-6)
@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("clip", [by_norm, by_value])
def test_a_step_before_the_users_clip(clip: Clip, watched: bool) -> None:
    """With hooks on the optimizer as well, they leave the step alone."""
    model, alone = network(), network()
    optimizer = sgd(model)
    monitor = gw.watch(model, optimizer, **QUIET) if watched else gw.Monitor(model, **QUIET)
    with monitor:
        train(model, optimizer, before=monitor.step, clip=clip, seen=lambda truth, used: assert_norms(monitor, truth))
    assert len(monitor.history) == 30
    assert captured(monitor) == BEFORE_CLIPPING
    assert SEEN_CLIPPED not in str(monitor.report())
    assert monitor.alerts == []
    train(alone, sgd(alone), clip=clip)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), alone.parameters()))


@cell("a policy of the monitor's own: before clipping, which comes after measuring", within=1e-6)
@pytest.mark.parametrize("watched", [True, False])
def test_a_policy_of_the_monitor(watched: bool) -> None:
    model, alone = network(), network()
    optimizer = sgd(model)
    arguments = {**QUIET, "clip": gw.clipping.GlobalNorm(LIMIT)}
    monitor = gw.watch(model, optimizer, **arguments) if watched else gw.Monitor(model, **arguments)
    with monitor:
        train(
            model,
            optimizer,
            before=(lambda: None) if watched else monitor.step,
            seen=lambda truth, used: assert_norms(monitor, truth),
        )
    assert monitor.alerts == []
    train(alone, sgd(alone), clip=by_norm)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), alone.parameters()))


# -- monitor.clip_grad_norm_() in the place of torch's ---------------------------------------------------------------


@cell("monitor.clip_grad_norm_(), float32 and float64: torch's value, and its gradients bit for bit", within=1e-6)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("max_norm", [1e-3, 1, 4.0, 1e6, float("inf")])
def test_in_the_place_of_torchs(dtype: torch.dtype, max_norm: float) -> None:
    model = network(dtype)
    with gw.Monitor(model, **QUIET) as monitor:
        for loss in losses(5):
            model.zero_grad()
            loss(model).backward()
            truth, twin = norms_now(model), with_gradients_of(model)
            ours, theirs = monitor.clip_grad_norm_(max_norm), nn.utils.clip_grad_norm_(twin.parameters(), max_norm)
            assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
            assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
            assert all(torch.equal(p.grad, q.grad) for p, q in gradients_of(model, twin))
            assert_norms(monitor, truth)
    assert captured(monitor) == BEFORE_CLIPPING


def with_gradients_of(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with copies of its gradients."""
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters()):
        q.grad = None if p.grad is None else p.grad.clone()
    return twin


def gradients_of(model: nn.Module, twin: nn.Module) -> list[tuple[Any, Any]]:
    return list(zip(model.parameters(), twin.parameters(), strict=True))


@cell("monitor.clip_grad_norm_(), bfloat16: nearer to the limit than torch's, whose total has 3 digits", within=4e-3)
@cell("monitor.clip_grad_norm_(), float16: nearer to the limit than torch's, whose total has 3 digits", within=1e-3)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float16, 1e-3), (torch.bfloat16, 4e-3)])
def test_half_precision_in_the_place_of_torchs(dtype: torch.dtype, within: float) -> None:
    model = network(dtype)
    ours, theirs = [], []
    with gw.Monitor(model, **QUIET) as monitor:
        for loss in losses(20):
            model.zero_grad()
            loss(model).backward()
            truth, twin = norms_now(model), with_gradients_of(model)
            assert float(monitor.clip_grad_norm_(LIMIT)) == pytest.approx(total_of(truth), rel=1e-6)
            by_norm(twin)
            ours.append(abs(total_of(norms_now(model)) / LIMIT - 1))
            theirs.append(abs(total_of(norms_now(twin)) / LIMIT - 1))
            assert_norms(monitor, truth)
    assert max(ours) < within
    assert np.mean(ours) < np.mean(theirs)


@cell("monitor.clip_grad_norm_() of a gradient that is not finite: it is left alone, torch makes all of them NaN")
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_not_clipped(value: float) -> None:
    model = network()
    (loss,) = losses(1)
    loss(model).backward()
    model.fc2.bias.grad[0] = value
    twin = with_gradients_of(model)
    monitor = gw.Monitor(model, **QUIET)
    np.testing.assert_equal(float(monitor.clip_grad_norm_(LIMIT)), value)
    assert all(torch.equal(p.grad.nan_to_num(), q.grad.nan_to_num()) for p, q in gradients_of(model, twin))
    assert rules_of(monitor) == ["nonfinite"]


@cell("monitor.clip_grad_norm_() before a GradScaler unscales: the limit holds for the true gradients", within=1e-6)
@pytest.mark.parametrize("fused", [False, True])
def test_a_clip_of_scaled_gradients(fused: bool) -> None:
    """What training gives is bit for bit what it gives with unscale_() and torch's own: the scale is a power of 2."""

    def trained(monitored: bool) -> nn.Module:
        model, scaler = network(), torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
        monitor = gw.Monitor(model, scaler=scaler, **QUIET)
        for loss in losses(4):
            truth = twin_norms(model, [loss])
            optimizer.zero_grad()
            scaler.scale(loss(model)).backward()
            if monitored:
                total = monitor.clip_grad_norm_(LIMIT)
                assert_norms(monitor, truth)
            else:
                scaler.unscale_(optimizer)
                total = by_norm(model)
            assert float(total) == pytest.approx(total_of(truth), rel=1e-6)
            scaler.step(optimizer)
            scaler.update()
        return model

    ours, theirs = trained(True), trained(False)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters()))


# -- "you are looking at clipped gradients" --------------------------------------------------------------------------


@cell("a total norm that stays the same, float16: it is said that the gradients are clipped")
@cell("a total norm that stays the same, float32: it is said that the gradients are clipped")
@cell("a total norm that stays the same, float64: it is said that the gradients are clipped")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("called", ["watch()", "monitor.step() too late"])
def test_a_constant_total_is_a_clipped_one(dtype: torch.dtype, called: str) -> None:
    model = network(dtype)
    optimizer = sgd(model)
    monitor = gw.watch(model, optimizer, **QUIET) if called == "watch()" else gw.Monitor(model, **QUIET)

    def clip(model: nn.Module) -> None:
        by_norm(model)
        if called != "watch()":
            monitor.step()

    with monitor:
        train(model, optimizer, clip=clip)
    (alert,) = monitor.alerts
    assert (alert.rule, alert.step, alert.layer, alert.severity) == ("clipped", 19, None, gw.Severity.INFO)
    assert alert.message.startswith(
        "you are looking at clipped gradients: the total norm stayed at 0.5 for 20 steps; call monitor.step() before"
    )
    assert monitor.report().verdict.startswith("healthy: 30 steps")


@cell(
    "a total norm that stays the same, bfloat16",
    unknown="torch's own total has 3 digits, so that of the clipped gradients changes as if by noise; that they were "
    "measured after any clipping is in the report",
)
def test_a_constant_total_in_bfloat16() -> None:
    model = network(torch.bfloat16)
    optimizer = sgd(model)
    with gw.watch(model, optimizer, **QUIET) as monitor:
        train(model, optimizer, clip=by_norm)
    assert 2e-3 < np.ptp(monitor.history.total_norm) / LIMIT < 3e-2
    assert monitor.alerts == []
    assert SEEN_CLIPPED in str(monitor.report())


@cell("the user clips some steps only: nothing is said", within=1e-6)
def test_clipping_some_steps_is_not_told() -> None:
    model = network()
    optimizer = sgd(model)
    totals: list[float] = []

    def clip_most(model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)

    with gw.watch(model, optimizer, **QUIET) as monitor:
        train(model, optimizer, steps=60, clip=clip_most, seen=lambda truth, used: totals.append(total_of(truth)))
    assert 0.2 < np.mean(np.array(totals) > 3.0) < 0.95
    np.testing.assert_allclose(monitor.history.total_norm, np.minimum(totals, 3.0), rtol=2e-6)
    assert monitor.alerts == []


@cell("a gradient that is the same at every step is not taken for a clipped one", within=1e-6)
def test_a_constant_gradient() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    (loss,) = losses(1)
    truth = twin_norms(model, [loss])
    with gw.watch(model, optimizer, **QUIET) as monitor:
        for _ in range(30):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
            assert_norms(monitor, truth)
    assert monitor.alerts == []


# -- frameworks ------------------------------------------------------------------------------------------------------


@cell(
    "Lightning, manual optimization with self.clip_gradients(): the clipped gradients, and the report says so",
    within=1e-6,
)
@cell("Lightning, Trainer(gradient_clip_val=...): before clipping", within=1e-6)
@pytest.mark.parametrize("automatic", [True, False])
def test_lightning(automatic: bool) -> None:
    pl = pytest.importorskip("pytorch_lightning")
    model = network()
    truths: list[dict[str, float]] = []

    class Module(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = automatic
            self.net = model

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
            loss = losses(30)[batch_idx]
            truths.append(twin_norms(self, [lambda module: loss(module.net)]))
            assert total_of(truths[-1]) > LIMIT
            if automatic:
                return loss(model)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss(model))
            self.clip_gradients(optimizer, LIMIT, "norm")
            truths[-1] = norms_now(self)
            optimizer.step()
            return None

        def on_train_batch_end(self, *_: Any) -> None:
            assert_norms(callback.monitor, truths[-1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return sgd(model)

        def train_dataloader(self) -> Tensor:
            return torch.zeros(30)

    callback = GradientMonitor(**QUIET)
    clip = {"gradient_clip_val": LIMIT} if automatic else {}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[callback], **quiet, **clip)
    trainer.fit(Module())
    assert len(callback.monitor.history) == 30
    assert captured(callback.monitor) == (BEFORE_CLIPPING if automatic else AFTER_CLIPPING)
    assert rules_of(callback.monitor) == ([] if automatic else ["clipped"])


@cell("Fabric, fabric.clip_gradients(): the clipped gradients, and it is said", within=1e-6)
def test_fabric() -> None:
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    raw = network()
    raw_optimizer = sgd(raw)
    model, optimizer = fabric.setup(raw, raw_optimizer)
    with gw.watch(model, raw_optimizer, **QUIET) as monitor:
        train(
            raw,
            optimizer,
            clip=lambda _: fabric.clip_gradients(model, optimizer, max_norm=LIMIT),
            seen=lambda truth, used: assert_norms(monitor, used),
        )
    assert captured(monitor) == AFTER_CLIPPING
    assert rules_of(monitor) == ["clipped"]


@cell("Accelerate, accelerator.clip_grad_norm_(): before it by monitor.step(), otherwise clipped and said", within=1e-6)
@pytest.mark.parametrize("stepped", [True, False])
def test_accelerate(stepped: bool) -> None:
    accelerator = pytest.importorskip("accelerate").Accelerator(cpu=True)
    raw = network()
    model, optimizer = accelerator.prepare(raw, sgd(raw))
    with gw.watch(model, optimizer, **QUIET) as monitor:
        train(
            raw,
            optimizer,
            before=monitor.step if stepped else lambda: None,
            clip=lambda _: accelerator.clip_grad_norm_(model.parameters(), LIMIT),
            seen=lambda truth, used: assert_norms(monitor, truth if stepped else used),
        )
    accelerator.free_memory()
    assert captured(monitor) == (BEFORE_CLIPPING if stepped else AFTER_CLIPPING)
    assert rules_of(monitor) == ([] if stepped else ["clipped"])
