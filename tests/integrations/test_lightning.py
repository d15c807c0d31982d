"""GradientMonitor against plain PyTorch, in real Trainers of both packages."""

from __future__ import annotations

import csv
import math
import os
import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.clipping.several import check_parameters
from gradwatch.faults import GradwatchWarning
from gradwatch.integrations.lightning import GradientMonitor
from gradwatch.stats import Measured, measure

PACKAGES = ("pytorch_lightning", "lightning.pytorch")
BATCHES = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(0))
"""6 batches of 8: Lightning takes any iterable for a data loader."""

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
SILENT = {**QUIET, "logger": False, "enable_checkpointing": False}


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Any:
    return import_module(request.param)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def loss_of(net: nn.Module, batch: Tensor, index: int = 0) -> Tensor:
    return (net(batch) - batch.sum(1, keepdim=True)).square().mean()


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1)


def regression(
    package: Any,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    loss: Callable[[nn.Module, Tensor, int], Tensor | None] = loss_of,
) -> Any:
    """A LightningModule of ``package``."""

    class Regression(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
            return loss(self.net, batch, batch_idx)

        validation_step = test_step = predict_step = training_step

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer(self.net)

        def train_dataloader(self) -> Tensor:
            return BATCHES

        val_dataloader = test_dataloader = predict_dataloader = train_dataloader

    return Regression()


def norms_of(net: nn.Module) -> list[float]:
    """Of each layer, in float64."""
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return [math.sqrt(sum(float(p.grad.double().square().sum()) for p in layer.parameters())) for layer in layers]


def reference(steps: list[Tensor], max_norm: float = math.inf) -> np.ndarray:
    """Norms before clipping [step, layer] of the same training by hand, each step's loss a mean over its batches."""
    net = network()
    optimizer = sgd(net)
    rows = []
    for batches in steps:
        optimizer.zero_grad()
        (sum(loss_of(net, batch) for batch in batches) / len(batches)).backward()
        rows.append(norms_of(net))
        nn.utils.clip_grad_norm_(net.parameters(), max_norm)
        optimizer.step()
    return np.array(rows)


def fit(package: Any, callbacks: Any, module: Any = None, **trainer: Any) -> Any:
    module = regression(package) if module is None else module
    trainer = package.Trainer(**{**SILENT, "callbacks": callbacks, **trainer})
    trainer.fit(module)
    return trainer


def weights(module: Any) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


class Calls:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.closed = 0

    def write(self, report: gw.Report) -> None:
        self.steps.append(report.stats.step)

    def close(self) -> None:
        self.closed += 1


class Broken(Calls):
    def close(self) -> None:
        raise OSError("disk full")


# -- what is captured, and when --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False])
def test_every_step_equals_the_same_training_by_hand(package, alone):
    callback = GradientMonitor(sinks=())
    fit(package, callback if alone else [callback])
    assert [layer.name for layer in callback.monitor.layers] == ["net.0", "net.2"]
    assert callback.monitor.history.steps.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(callback.monitor.history.grad_norm, reference(BATCHES.split(1)), rtol=1e-6)


def test_it_does_not_change_training(package):
    watched, plain = regression(package), regression(package)
    fit(package, GradientMonitor(sinks=(), histogram_every_n_steps=2), watched)
    fit(package, [], plain)
    assert same(weights(watched), weights(plain))


def test_accumulated_batches_are_one_step(package):
    callback = GradientMonitor(sinks=())
    fit(package, callback, accumulate_grad_batches=4)
    assert callback.monitor.history.steps.tolist() == [0, 1]  # the second of 2 batches, each a quarter of its loss
    expected = reference([BATCHES[:4]])
    np.testing.assert_allclose(callback.monitor.history.grad_norm[:1], expected, rtol=1e-6)


def test_clipping_equals_the_trainers_bit_by_bit_and_norms_are_those_before(package):
    ours, theirs = regression(package), regression(package)
    callback = GradientMonitor(clip=gw.clipping.GlobalNorm(0.5), sinks=())
    fit(package, callback, ours)
    fit(package, [], theirs, gradient_clip_val=0.5)
    assert same(weights(ours), weights(theirs))
    np.testing.assert_allclose(callback.monitor.history.grad_norm, reference(BATCHES.split(1), 0.5), rtol=1e-5)
    assert callback.monitor.history.total_norm.max() > 0.5


def test_clip_is_refused_when_the_trainer_clips(package):
    callback = GradientMonitor(clip=gw.clipping.Value(0.5))
    with pytest.raises(ValueError, match=r"clip=Value\(max_value=0.5\): .*gradient_clip_val=1.0; remove one"):
        fit(package, callback, gradient_clip_val=1.0)
    fit(package, GradientMonitor(sinks=()), gradient_clip_val=1.0)  # watching alone is fine


def test_clip_is_refused_when_the_module_clips(package):
    module = regression(package)

    class Clipping(type(module)):
        def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None: ...

    with pytest.raises(ValueError, match=r"Clipping clips too, it overrides configure_gradient_clipping\(\); remove"):
        fit(package, GradientMonitor(clip=gw.clipping.GlobalNorm(1.0)), Clipping())


def after_the_monitor(package: Any) -> Any:
    """A callback that keeps the total norm each time an optimizer is about to step."""

    class Later(package.Callback):
        def __init__(self) -> None:
            self.totals: list[float] = []

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.totals.append(math.hypot(*norms_of(pl_module)))

    return Later()


def test_a_closure_that_is_evaluated_again_is_clipped_but_not_recorded(package):
    module = regression(package, lambda net: torch.optim.LBFGS(net.parameters(), max_iter=4))
    callback, later = GradientMonitor(clip=gw.clipping.GlobalNorm(0.1), sinks=()), after_the_monitor(package)
    fit(package, [callback, later], module)
    history = callback.monitor.history
    assert history.steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(later.totals) > 6
    assert max(later.totals) <= 0.1 * (1 + 1e-6)
    np.testing.assert_allclose(history.grad_norm[0], reference([BATCHES[:1]])[0], rtol=1e-6)


def gan(package: Any) -> Any:
    class GAN(package.LightningModule):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.generator, self.critic = nn.Linear(3, 3), nn.Linear(3, 1)

        def training_step(self, batch: Tensor, batch_idx: int) -> None:
            for optimizer, sign in zip(self.optimizers(), (1, -1)):
                # no toggling and each zeroes its own alone, so the other's gradients stay in .grad
                optimizer.zero_grad()
                self.manual_backward(sign * self.critic(self.generator(batch)).mean())
                optimizer.step()

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [sgd(self.generator), sgd(self.critic)]

        def train_dataloader(self) -> Tensor:
            return BATCHES

    return GAN()


def test_two_optimizers_are_records_of_their_own(package):
    callback = GradientMonitor(sinks=())
    fit(package, callback, gan(package))
    history = callback.monitor.history
    assert history.layers == ("generator", "critic")
    assert history.steps.tolist() == list(range(12))
    assert history.has_grad.tolist() == [[True, False], [False, True]] * 6


GAN_CLIPS = {
    "global_norm": lambda: gw.clipping.GlobalNorm(0.1),
    "per_layer": lambda: gw.clipping.PerLayer(0.1),
    "agc": lambda: gw.clipping.AGC(0.02),
    "memories": lambda: gw.clipping.PerGroup(
        {"generator": gw.clipping.AutoClip(30), "critic": gw.clipping.AutoClip(60)}
    ),
}


@pytest.mark.parametrize("make", GAN_CLIPS.values(), ids=GAN_CLIPS)
def test_two_optimizers_are_clipped_each_by_its_own_gradients(package, make):
    module, plain = gan(package), gan(package)
    callback = GradientMonitor(clip=make(), sinks=())
    fit(package, callback, module)
    clip = make()
    check_parameters(clip, dict(plain.named_parameters()))
    for batch in BATCHES:
        for part, sign in ((plain.generator, 1), (plain.critic, -1)):
            part.zero_grad()
            (sign * plain.critic(plain.generator(batch)).mean()).backward()
            names = [name for name, p in plain.named_parameters() if any(p is own for own in part.parameters())]
            gradients = [p.grad for p in part.parameters()]
            found = measure(gradients)
            clip.clip_(gradients, Measured(found.norms, found.total_norm, names=names, parameters=[*part.parameters()]))
            sgd(part).step()
    assert same(weights(module), weights(plain))
    assert callback.monitor.report().clip.rate > 0


def test_a_memory_that_two_optimizers_would_share_is_refused(package):
    callback = GradientMonitor(clip=gw.clipping.AutoClip(), sinks=())
    with pytest.raises(
        ValueError, match=r"clip=AutoClip\(.*2 optimizers take turns, .* PerGroup\(\{'generator.\*': AutoClip"
    ):
        fit(package, callback, gan(package))


def test_clip_is_refused_with_deepspeed(package):
    strategy = type("DeepSpeedStrategy", (), {})()
    trainer = SimpleNamespace(strategy=strategy, gradient_clip_val=None)
    callback = GradientMonitor(clip=gw.clipping.GlobalNorm(1.0))
    with pytest.raises(
        ValueError, match=r"DeepSpeed keeps its gradients to itself .*: use Trainer\(gradient_clip_val=...\)"
    ):
        callback.setup(trainer, regression(package), "fit")


MEMORIES = {
    "autoclip": lambda: gw.clipping.AutoClip(30),
    "chain": lambda: gw.clipping.Chain(gw.clipping.SkipNonFinite(), gw.clipping.AutoClip(20)),
    "per_group": lambda: gw.clipping.PerGroup({"net.0": gw.clipping.SpikeClip(warmup=2, factor=1.0, z=0.0), "*": 0.1}),
}


@pytest.mark.parametrize("make", MEMORIES.values(), ids=MEMORIES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_that_resumes_clips_as_the_uninterrupted_one(package, make, accumulate, tmp_path):
    ours, whole = regression(package), regression(package)
    settings = {"accumulate_grad_batches": accumulate}
    fit(package, GradientMonitor(clip=make(), sinks=()), whole, max_epochs=2, **settings)
    first = fit(package, GradientMonitor(clip=make(), sinks=()), **settings)
    first.save_checkpoint(tmp_path / "last.ckpt")
    resumed = GradientMonitor(clip=make(), sinks=())
    trainer = package.Trainer(**{**SILENT, "max_epochs": 2}, callbacks=resumed, **settings)
    trainer.fit(ours, ckpt_path=tmp_path / "last.ckpt")
    assert same(weights(ours), weights(whole))
    assert len(resumed.monitor.history) == 12 // accumulate
    assert not same(weights(ours), weights(fit(package, [], max_epochs=2, **settings).lightning_module))


def test_a_second_fit_begins_with_an_empty_memory(package):
    callback = GradientMonitor(clip=gw.clipping.AutoClip(30), sinks=())
    first, second = regression(package), regression(package)
    fit(package, callback, first)
    fit(package, callback, second)
    assert same(weights(first), weights(second))


def test_too_many_skipped_steps_stop_the_fit(package):
    def loss(net: nn.Module, batch: Tensor, index: int) -> Tensor:
        return loss_of(net, batch) * float("nan" if index >= 2 else 1)

    callback = GradientMonitor(clip=gw.clipping.SkipNonFinite(max_consecutive=1), sinks=())
    module = regression(package, loss=loss)
    with pytest.raises(
        gw.clipping.TooManySkipped, match=r"not finite for 2 steps in a row, .*: net.0.weight, net.0.bias"
    ):
        fit(package, callback, module)
    assert callback.monitor.closed
    assert all(w.isfinite().all() for w in weights(module))


def test_every_second_step_is_not_always_the_same_optimizers(package):
    callback = GradientMonitor(every_n_steps=2, histogram_every_n_steps=4, sinks=[memory := gw.sinks.Memory()])
    fit(package, callback, gan(package))
    assert callback.monitor.history.steps.tolist() == [0, 1, 4, 5, 8, 9]
    assert [r.stats.step for r in memory.reports if r.stats.histogram is not None] == [0, 1, 8, 9]


def test_close_looks_at_the_steps_of_optimizers_that_take_turns(package):
    callback = GradientMonitor(histogram_every_n_steps=10, sinks=[memory := gw.sinks.Memory()])
    fit(package, callback, gan(package), max_epochs=4)
    heard = [r.stats.step for r in memory.reports if r.stats.output_gradient is not None]
    assert heard == [*range(1, 16), 20, 21, 40, 41]


def test_a_step_without_a_loss_has_no_gradients(package):
    module = regression(package, loss=lambda net, batch, index: None if index == 2 else loss_of(net, batch))
    callback = GradientMonitor(sinks=())
    with pytest.warns(UserWarning, match="`training_step` returned `None`"):
        fit(package, callback, module)
    assert callback.monitor.history.has_grad.any(axis=1).tolist() == [True, True, False, True, True, True]


# -- mixed precision: a GradScaler of scale 8 on the CPU ---------------------------------------------------------------


def scaled(package: Any, optimizer: Callable[[nn.Module], torch.optim.Optimizer]) -> tuple[Any, dict[str, Any]]:
    """A module that trains in float32 all the same, so that its gradients can be compared, and the Trainer's plugin."""
    plugins = import_module(f"{package.__name__}.plugins")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    return regression(package, optimizer, _without_autocast), {
        "plugins": [plugins.MixedPrecision("16-mixed", "cpu", scaler)]
    }


def _without_autocast(net: nn.Module, batch: Tensor, index: int) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return loss_of(net, batch)


def fused(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, fused=True)


@pytest.mark.parametrize("optimizer", [sgd, fused], ids=["unscaled by Lightning", "unscaled by a fused optimizer"])
def test_the_gradients_are_the_true_ones_whoever_unscales_them(package, optimizer):
    module, trainer = scaled(package, optimizer)
    callback = GradientMonitor(sinks=[memory := gw.sinks.Memory()], histogram_every_n_steps=1)
    fit(package, callback, module, **trainer)
    expected = reference(BATCHES.split(1))
    np.testing.assert_allclose(callback.monitor.history.grad_norm, expected, rtol=1e-6)
    assert all(r.stats.max_abs.max() < r.stats.total_norm for r in memory.reports)


@pytest.mark.parametrize("clip", [gw.clipping.Value(0.1), gw.clipping.GlobalNorm(0.5)], ids=["value", "global_norm"])
def test_clipping_is_the_same_whoever_unscales(package, clip):
    modules = []
    for optimizer in (sgd, fused):
        module, trainer = scaled(package, optimizer)
        fit(package, GradientMonitor(clip=clip, sinks=()), module, **trainer)
        modules.append(weights(module))
    for a, b in zip(*modules, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert not same(modules[0], weights(regression(package)))


# -- where it writes ---------------------------------------------------------------------------------------------------


def rows_of(directory: Any) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def loggers_of(package: Any) -> Any:
    return import_module(f"{package.__name__}.loggers")


def test_a_tensorboard_logger_gets_everything_in_its_own_file(package, tmp_path):
    logger = loggers_of(package).TensorBoardLogger(tmp_path, name="", version="run")
    fit(package, GradientMonitor(), logger=logger, log_every_n_steps=1)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    expected = np.hypot(*reference(BATCHES.split(1)).T)
    totals = [(e.step, e.value) for e in events.Scalars("gradients/total_norm")]
    assert [step for step, _ in totals] == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose([value for _, value in totals], expected, rtol=1e-6)
    assert len([name for name in os.listdir(tmp_path / "run") if "tfevents" in name]) == 1


def test_any_other_logger_gets_one_dict_at_the_trainers_cadence(package, tmp_path):
    logger = loggers_of(package).CSVLogger(tmp_path, name="", version="run")
    fit(package, GradientMonitor(clip=gw.clipping.GlobalNorm(0.5)), logger=logger, log_every_n_steps=4)
    rows = rows_of(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == [0, 4]
    expected = reference(BATCHES.split(1), max_norm=0.5)[[0, 4]]
    for row, norms in zip(rows, expected, strict=True):
        found = [float(row[f"grad_norm/{name}"]) for name in ("net.0", "net.2")]
        np.testing.assert_allclose(found, norms, rtol=1e-5)
        total = math.hypot(*norms)
        numbers = {
            "total_norm": total,
            "log10_min": math.log10(min(norms)),
            "log10_median": np.median(np.log10(norms)),
            "log10_max": math.log10(max(norms)),
            "clip_coefficient": min(1.0, 0.5 / total),
        }
        for name, number in numbers.items():
            assert float(row[f"gradients/{name}"]) == pytest.approx(number, rel=1e-5)


def test_a_logger_gets_both_optimizers_of_a_round(package, tmp_path):
    logger = loggers_of(package).CSVLogger(tmp_path, name="", version="run")
    fit(package, GradientMonitor(), gan(package), logger=logger, log_every_n_steps=4)
    rows = rows_of(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == [0, 1, 8, 9]
    assert [bool(row["grad_norm/critic"]) for row in rows] == [False, True, False, True]


@pytest.mark.parametrize("trainer", [{}, {"fast_dev_run": True, "logger": True}, {"barebones": True}], ids=str)
def test_without_a_logger_nothing_is_written(package, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = GradientMonitor()
    if "barebones" in trainer:
        package.Trainer(callbacks=callback, max_epochs=1, accelerator="cpu", **trainer).fit(regression(package))
    else:
        fit(package, callback, **trainer)
    assert len(callback.monitor.history) > 0
    assert os.listdir(tmp_path) == []


def test_alerts_reach_the_console(package, caplog):
    module = regression(package, loss=lambda net, batch, index: loss_of(net, batch) * (math.nan if index == 3 else 1))
    fit(package, GradientMonitor(), module)
    assert any("ERROR nonfinite" in record.getMessage() for record in caplog.records if record.name == "gradwatch")


def test_only_global_rank_zero_writes():
    callback = GradientMonitor(sinks=[calls := Calls()])
    trainer = SimpleNamespace(is_global_zero=False, loggers=[], optimizers=[])
    callback.on_fit_start(trainer, net := network())
    loss_of(net, BATCHES[0]).backward()
    callback.monitor.observe()
    assert len(callback.monitor.history) == 1
    assert calls.steps == []


# -- its life ----------------------------------------------------------------------------------------------------------


def test_it_is_closed_when_the_fit_ends_and_made_anew_for_the_next(package):
    exploding = gw.rules.Exploding(threshold=1e-9, calm_update=0.0, patience=3)
    callback = GradientMonitor(rules=[exploding], sinks=[calls := Calls()])
    for fits in (1, 2):
        trainer = fit(package, callback)
        assert callback.monitor.closed
        assert calls.closed == fits
        assert calls.steps == [0, 1, 2, 3, 4, 5] * fits
        assert len(callback.monitor.history) == 6
        assert {alert.step for alert in callback.monitor.alerts} == {2}  # the rule starts anew too
    before = callback.monitor
    for run in (trainer.validate, trainer.test, trainer.predict):
        run(regression(package))
    assert callback.monitor is before
    assert len(before.history) == 6


def test_a_file_goes_on_in_the_second_fit(package, tmp_path):
    callback = GradientMonitor(sinks=[gw.sinks.JSONL(tmp_path / "gradients.jsonl")])
    fit(package, callback)
    fit(package, callback)
    assert len((tmp_path / "gradients.jsonl").read_text().splitlines()) == 12


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("sink", [Calls, Broken])
def test_an_exception_closes_it_and_is_not_masked(package, error, sink, capsys):
    def fails(net: nn.Module, batch: Tensor, index: int) -> Tensor:
        if index == 2:
            raise error
        return loss_of(net, batch)

    callback = GradientMonitor(sinks=[sink()], strict=True)
    expected = SystemExit if isinstance(error, KeyboardInterrupt) else type(error)  # Lightning exits with 1
    with pytest.raises(expected) as caught:
        fit(package, callback, regression(package, loss=fails))
    assert caught.value is error or isinstance(error, KeyboardInterrupt)
    assert callback.monitor.closed
    assert len(callback.monitor.history) == 2


def test_what_fails_inside_is_said_once_and_training_goes_on(package, monkeypatch):
    monkeypatch.setattr("gradwatch.integrations.lightning.parameters_of", lambda optimizer: 1 / 0)
    with pytest.warns(GradwatchWarning, match="GradientMonitor failed, this step is not recorded: ZeroDiv") as caught:
        trainer = fit(package, callback := GradientMonitor(sinks=()))
    assert [w.category for w in caught if "treespec" not in str(w.message)] == [GradwatchWarning]
    assert trainer.global_step == 6
    assert len(callback.monitor.history) == 0
    with pytest.raises(ZeroDivisionError):
        fit(package, GradientMonitor(sinks=(), strict=True))


def test_a_logger_that_fails_is_dropped_and_training_goes_on(package, tmp_path, monkeypatch):
    logger = loggers_of(package).CSVLogger(tmp_path, name="", version="run")
    monkeypatch.setattr(logger, "log_metrics", lambda *args, **kwargs: 1 / 0)
    with pytest.warns(GradwatchWarning, match="sink LoggerNumbers failed, it is dropped"):
        trainer = fit(package, GradientMonitor(), logger=logger, log_every_n_steps=1)
    assert trainer.global_step == 6


# -- checkpoints and copies --------------------------------------------------------------------------------------------


def test_a_resumed_run_continues_baselines_and_steps(package, tmp_path):
    whole = GradientMonitor(sinks=())
    fit(package, whole, max_epochs=2)
    first = GradientMonitor(sinks=())
    trainer = fit(package, first)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    second = GradientMonitor(sinks=())
    trainer = package.Trainer(**{**SILENT, "max_epochs": 2}, callbacks=second)
    trainer.fit(regression(package), ckpt_path=tmp_path / "last.ckpt")
    assert second.monitor.history.steps.tolist() == list(range(12))
    np.testing.assert_array_equal(second.monitor.history.grad_norm, whole.monitor.history.grad_norm)
    expected = whole.state_dict()
    found = second.state_dict()
    expected["history"]["total_update"][6] = torch.nan  # how far the step before moved the weights, nobody saw
    for rules in (expected["rules"], found["rules"]):  # and nobody added it to the others
        del rules["UpdateRatio.0"]["row"]["path"], rules["Vanishing.0"]["signal"]["path"]
    assert _plain(found) == _plain(expected)


def _plain(state: Any) -> Any:
    """With lists for tensors and words for NaN, so that == compares values."""
    if isinstance(state, Tensor):
        return [repr(value) for value in state.flatten().tolist()]
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, float):
        return repr(state)
    return [_plain(value) for value in state] if isinstance(state, (list, tuple)) else state


def test_a_checkpoint_of_something_else_does_not_stop_training(package):
    callback = GradientMonitor(sinks=())
    callback.load_state_dict({"next_step": 3, "history": {"layers": ["gone"]}})
    with pytest.warns(GradwatchWarning, match="starts anew instead of from the checkpoint: ValueError: state must be"):
        fit(package, callback)
    assert callback.monitor.history.steps.tolist() == [0, 1, 2, 3, 4, 5]


def test_what_a_test_run_loads_is_not_for_the_next_fit(package, tmp_path):
    callback = GradientMonitor(sinks=())
    trainer = fit(package, callback)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer.test(regression(package), ckpt_path=tmp_path / "last.ckpt")
    fit(package, callback)
    assert callback.monitor.history.steps.tolist() == [0, 1, 2, 3, 4, 5]


class Unprintable:
    """A rule whose repr holds its address."""

    def check(self, history: gw.History) -> list[gw.Alert]:
        return []


def test_state_keys_are_those_of_the_settings(package):
    settings = [
        {},
        {"granularity": "parameter"},
        {"every_n_steps": 2},
        {"clip": gw.clipping.GlobalNorm(1.0)},
        {"clip": gw.clipping.GlobalNorm(2.0)},
        {"rules": [Unprintable()]},
    ]
    callbacks = [GradientMonitor(sinks=(), **s) for s in settings]
    keys = [callback.state_key for callback in callbacks]
    assert len(set(keys)) == len(settings)
    assert GradientMonitor(rules=[Unprintable()]).state_key == keys[-1]
    trainer = fit(package, callbacks[:3])
    for callback in callbacks[:3]:
        assert len(callback.monitor.history) == len(range(0, trainer.global_step, callback._settings["every_n_steps"]))


def test_a_copy_made_while_training_keeps_the_state_and_drops_what_is_open(package, tmp_path):
    copies = []

    class Copying(package.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 4:
                copies.append(pickle.loads(pickle.dumps(callback)))

    callback = GradientMonitor(clip=gw.clipping.GlobalNorm(0.5), sinks=[gw.sinks.JSONL(tmp_path / "gradients.jsonl")])
    fit(package, [callback, Copying()])
    copy = copies[0]
    assert copy.monitor is None
    assert copy.state_key == callback.state_key
    assert copy.state_dict()["history"]["steps"].tolist() == [0, 1, 2, 3]
    fit(package, copy)
    assert len((tmp_path / "gradients.jsonl").read_text().splitlines()) == 12


def test_a_fresh_callback_pickles_and_has_no_state():
    assert pickle.loads(pickle.dumps(GradientMonitor())).state_dict() == {}


# -- arguments, packages, command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every_n_steps": 0}, ValueError, "every_n_steps must be a whole number from 1, got 0"),
        ({"histogram_every_n_steps": -1}, ValueError, "histogram_every_n_steps must be .* from 0, got -1"),
        ({"granularity": "tensor"}, ValueError, "granularity must be 'layer' or 'parameter', got 'tensor'"),
        ({"clip": 1.0}, TypeError, r"clip takes objects with clip_\(\), .*, got 1.0"),
        ({"rules": [gw.rules.Vanishing]}, TypeError, r"rules takes objects with check\(\), .*, got <class"),
        ({"sinks": "console"}, TypeError, "sinks must be a list or tuple of objects .*, got 'console'"),
        ({"include": [3]}, TypeError, "include takes patterns"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        GradientMonitor(**arguments)


def test_a_pattern_that_matches_nothing_is_refused_before_training(package):
    module = regression(package)
    with pytest.raises(ValueError, match=r"include: the pattern 'encoder\.\*' matches no layer; the layers are: net.0"):
        fit(package, GradientMonitor(include="encoder.*"), module)
    assert same(weights(module), weights(regression(package)))


def test_it_is_a_callback_of_both_packages():
    for name in PACKAGES:
        assert issubclass(GradientMonitor, import_module(name).Callback)


def fresh_import(monkeypatch: pytest.MonkeyPatch, *missing: str) -> Any:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "gradwatch.integrations.lightning")
    return import_module("gradwatch.integrations.lightning")


def test_one_package_is_enough(monkeypatch):
    found = fresh_import(monkeypatch, "lightning.pytorch").GradientMonitor
    assert found.__bases__ == (import_module("pytorch_lightning").Callback,)


def test_without_lightning_the_error_says_what_to_type(monkeypatch):
    with pytest.raises(ImportError, match=r'pip install "gradwatch\[lightning\]"'):
        fresh_import(monkeypatch, *PACKAGES)


def test_the_command_line_builds_it(package, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])  # Lightning warns when pytest has arguments of its own
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls what is deprecated there
    callback = "--trainer.callbacks"
    cli = import_module(f"{package.__name__}.cli").LightningCLI(
        type(regression(package)),
        save_config_callback=None,
        seed_everything_default=False,
        trainer_defaults=SILENT,
        args=[
            "fit",
            f"{callback}+=gradwatch.integrations.lightning.GradientMonitor",
            f"{callback}.every_n_steps=2",
            f"{callback}.include=[net.*]",
            f"{callback}.clip=gradwatch.clipping.GlobalNorm",
            f"{callback}.clip.max_norm=0.5",
            f"{callback}.rules+=gradwatch.rules.Vanishing",
            f"{callback}.rules.patience=7",
            f"{callback}.sinks+=gradwatch.sinks.Memory",
        ],
    )
    monitor = next(c for c in cli.trainer.callbacks if isinstance(c, GradientMonitor)).monitor
    assert monitor.history.steps.tolist() == [0, 2, 4]
    assert monitor.report().clip.threshold == 0.5
