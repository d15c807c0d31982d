"""Watching changes no bit of training, whatever trains, whatever watches, and whatever fails in it."""

from __future__ import annotations

import copy
import io
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_lightning
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.faults import GradwatchWarning
from gradwatch.integrations.lightning import GradientMonitor
from tests.fingerprint import Print, differences, fingerprint, hook_counts, identities, printed

STEPS = 4

FAULTS = {2: 1e4, 3: float("inf")}
"""Factors of the loss at some steps: an explosion and a loss that is not finite give rules and causes work."""

EXPLOSION = {1: 1e4}


class Case(NamedTuple):
    """What trains, and how."""

    optimizer: str
    precision: str
    accumulation: int = 1

    def __str__(self) -> str:
        return f"{self.optimizer}, {self.precision}, {self.accumulation} batches a step"


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD with momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "AdamW": partial(torch.optim.AdamW, lr=0.01),
    "AdamW, fused": partial(torch.optim.AdamW, lr=0.01, fused=True),
    "LBFGS": partial(torch.optim.LBFGS, lr=0.1, max_iter=3),
}

AUTOCAST = {"float32": None, "bfloat16 autocast": torch.bfloat16, "float16 and GradScaler": torch.float16}

CASES = [
    Case(optimizer, precision, accumulation)
    for optimizer in OPTIMIZERS
    for precision in AUTOCAST
    for accumulation in (1, 2)
    if not (optimizer == "LBFGS" and precision == "float16 and GradScaler")  # a GradScaler takes no closure
]


class Net(nn.Module):
    """Dropout and BatchNorm; no gradient may come to what is frozen, nor to what no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.ReLU(), nn.Linear(64, 9))
        self.body[0].bias.requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def loss(self, factor: float) -> Tensor:
        """Of a batch that all three generators have a part in."""
        x = torch.randn(8, 6) + float(np.random.rand()) + random.random()
        return self(x).float().square().mean() * factor


def network() -> Net:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    return Net()


class Watcher:
    """What is done to a training from outside: nothing."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any) -> None: ...

    def gradients_are_complete(self) -> None: ...

    def close(self) -> None: ...


def while_watched(*parts: Any) -> Print:
    """The fingerprint of a training that goes on: a module has hooks before a step that is looked at closely."""
    return {name: value for name, value in fingerprint(*parts).items() if name != "hooks"}


class Training:
    """A loop in plain PyTorch, with a fingerprint after every step."""

    def __init__(
        self, case: Case, watcher: Callable[..., Watcher] = Watcher, factors: dict[int, float] = FAULTS
    ) -> None:
        self.case, self.model, self.factors = case, network(), factors
        self.optimizer = OPTIMIZERS[case.optimizer](p for p in self.model.parameters() if p.requires_grad)
        self.scaler = None
        if case.precision == "float16 and GradScaler":
            self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        self.watcher = watcher(self.model, self.optimizer, self.scaler)

    def prints(self, close: bool = True) -> list[Print]:
        """A fingerprint after each step, and one when nobody watches any more."""
        found = []
        for step in range(STEPS):
            closure = partial(self.backward, step)
            if self.case.optimizer == "LBFGS":
                self.optimizer.step(closure)
            else:
                closure()
                if self.scaler is None:
                    self.optimizer.step()
                else:
                    self.scaler.step(self.optimizer)
                    self.scaler.update()
            found.append(while_watched(self.model, self.optimizer, self.scaler))
        if not close:
            return found
        self.watcher.close()
        found.append(
            fingerprint(self.model, self.optimizer, self.scaler) | {"optimizer hooks": hook_counts(self.optimizer)}
        )
        return found

    def backward(self, step: int) -> Tensor:
        """All of a step but the optimizer's."""
        self.optimizer.zero_grad()
        dtype = AUTOCAST[self.case.precision]
        for _ in range(self.case.accumulation):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                loss = self.model.loss(self.factors.get(step, 1.0)) / self.case.accumulation
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.watcher.gradients_are_complete()
        return loss


def lightning_prints(
    case: Case, *callbacks: pytorch_lightning.Callback, factors: dict[int, float] = FAULTS, **arguments: Any
) -> list[Print]:
    """The same by a Trainer."""

    class Module(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return self.net.loss(factors.get(batch_idx // case.accumulation, 1.0))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return OPTIMIZERS[case.optimizer](p for p in self.parameters() if p.requires_grad)

        def train_dataloader(self) -> range:
            return range(STEPS * case.accumulation)

    found = []

    class Prints(pytorch_lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            found.append(while_watched(pl_module.net, trainer.optimizers[0], scaler))

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            found.append(while_watched(pl_module, trainer.optimizers[0], scaler))

    scaler = None
    if case.precision == "float16 and GradScaler":
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        arguments["plugins"] = [MixedPrecision("16-mixed", "cpu", scaler)]
    else:
        arguments["precision"] = {"float32": "32-true", "bfloat16 autocast": "bf16-mixed"}[case.precision]
    trainer = pytorch_lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=case.accumulation,
        callbacks=[*callbacks, Prints()],
        **arguments,
    )
    module = Module()
    trainer.fit(module)
    found.append(
        fingerprint(module, trainer.optimizers[0], scaler) | {"optimizer hooks": hook_counts(trainer.optimizers[0])}
    )
    return found


plain = cache(lambda case: Training(case).prints())
plain_lightning = cache(lightning_prints)


class Untouched:
    """Fails when the gradients are not, to the last bit, the very tensors they were."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.checks = 0

    def before(self) -> None:
        self.gradients = identities(p.grad for p in self.model.parameters())

    def after(self) -> None:
        assert identities(p.grad for p in self.model.parameters()) == self.gradients
        self.checks += 1


SETTINGS: dict[str, Any] = {"histogram_every_n_steps": 1, "diagnose": True}


class ByHand(Watcher):
    """``monitor.step()`` in the loop."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, **settings: Any) -> None:
        self.untouched = Untouched(model)
        self.clips = "clip" in settings
        self.monitor = gw.Monitor(model, optimizer=optimizer, scaler=scaler, **{"sinks": (), **SETTINGS, **settings})

    def gradients_are_complete(self) -> None:
        self.untouched.before()
        self.monitor.step()
        if not self.clips:
            self.untouched.after()

    def close(self) -> None:
        self.monitor.close()


class ByHooks(Watcher):
    """``gw.watch``, between two hooks that look at the gradients."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, **settings: Any) -> None:
        self.untouched = Untouched(model)
        first = optimizer.register_step_pre_hook(lambda *_: self.untouched.before())
        self.monitor = gw.watch(model, optimizer, scaler=scaler, **{"sinks": (), **SETTINGS, **settings})
        self.hooks = [first, optimizer.register_step_pre_hook(lambda *_: self.untouched.after())]

    def close(self) -> None:
        self.monitor.close()
        for hook in self.hooks:
            hook.remove()


WATCHERS = {"Monitor": ByHand, "watch": ByHooks}


def neighbours() -> tuple[pytorch_lightning.Callback, pytorch_lightning.Callback]:
    """Callbacks to put before and after a GradientMonitor, which look at the gradients."""

    class Before(pytorch_lightning.Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.untouched = Untouched(pl_module)
            self.untouched.before()

    class After(pytorch_lightning.Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            before.untouched.after()

    before = Before()
    return before, After()


@pytest.mark.parametrize("watcher", WATCHERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_watching_changes_no_bit(case: Case, watcher: str) -> None:
    training = Training(case, partial(WATCHERS[watcher], strict=True))
    assert differences(training.prints(), plain(case)) == []
    monitor, untouched = training.watcher.monitor, training.watcher.untouched
    evaluations = 3 if (case.optimizer, watcher) == ("LBFGS", "Monitor") else 1  # of the closure, in each step
    assert len(monitor.history) == STEPS * evaluations
    assert untouched.checks >= STEPS - 1  # a step that a scaler skips never comes to the hooks
    assert {"nonfinite", "skipped"} & {alert.rule for alert in monitor.alerts}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_watching_changes_no_bit_of_lightning(case: Case) -> None:
    callback = GradientMonitor(sinks=(), strict=True, **SETTINGS)
    before, after = neighbours()
    assert differences(lightning_prints(case, before, callback, after), plain_lightning(case)) == []
    assert len(callback.monitor.history) == STEPS
    assert before.untouched.checks == 1
    assert {"nonfinite", "skipped"} & {alert.rule for alert in callback.monitor.alerts}


# -- when the monitor fails ------------------------------------------------------------------------------------------


class Fails:
    """Works once, and fails from then on: as a function, and as every part that a monitor has."""

    def __init__(self, works: Callable[..., Any] = lambda *_: ()) -> None:
        self.works, self.calls = works, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("broken on purpose")
        return self.works(*args, **kwargs)

    def write(self, report: gw.Report) -> None:
        self(report)

    def check(self, history: gw.History) -> Any:
        return self(history)

    def clip_(self, gradients: Any, stats: Any) -> Any:
        return gw.clipping.GlobalNorm(1e9).clip_(gradients, stats) if self() == () else None

    def explain(self, *args: Any) -> None:
        raise RuntimeError("broken on purpose")

    def close(self) -> None:
        raise OSError("disk full")


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "a sink": lambda: {"sinks": [Fails()]},
    "a rule": lambda: {"rules": [Fails()]},
    "a clip policy": lambda: {"clip": Fails()},
    "gradwatch.diagnosis.default": dict,
    "gradwatch.capture.measure": dict,
    "gradwatch.capture.element_sums": dict,
    "gradwatch.capture.ParameterSample": dict,
    "gradwatch.capture.HostCopy": dict,
    "gradwatch.history.History.append": dict,
}
"""What fails: a part given to the monitor, or something inside of it."""


@pytest.fixture
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What to give to the monitor; warnings are recorded, for both trainings alike."""
    name: str = request.param
    if name == "gradwatch.diagnosis.default":
        monkeypatch.setattr(name, lambda: (Fails(),))
    elif name == "gradwatch.history.History.append":
        monkeypatch.setattr(name, lambda self, stats: Fails.explain(self))
    elif name.startswith("gradwatch."):
        monkeypatch.setattr(name, Fails(resolve_name(name)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield PARTS[name]()
    assert [w.category for w in caught if "broken on purpose" in str(w.message)] != []
    assert {w.category for w in caught if "gradwatch" in str(w.message)} == {GradwatchWarning}


ALONE = Case("AdamW", "float32")
SCALED = Case("SGD with momentum", "float16 and GradScaler", 2)


@pytest.mark.parametrize("broken", PARTS, indirect=True)
@pytest.mark.parametrize("watcher", WATCHERS)
def test_a_monitor_that_fails_changes_no_bit(watcher: str, broken: dict[str, Any]) -> None:
    watched = Training(ALONE, partial(WATCHERS[watcher], **broken)).prints()
    assert differences(watched, Training(ALONE).prints()) == []


# A step that is skipped is no reason to look for causes.
@pytest.mark.parametrize("broken", sorted({*PARTS} - {"gradwatch.diagnosis.default"}), indirect=True)
@pytest.mark.parametrize("watcher", WATCHERS)
def test_a_monitor_that_fails_changes_no_bit_of_scaled_training(watcher: str, broken: dict[str, Any]) -> None:
    watched = Training(SCALED, partial(WATCHERS[watcher], **broken)).prints()
    assert differences(watched, Training(SCALED).prints()) == []


@pytest.mark.parametrize("broken", PARTS, indirect=True)
def test_a_monitor_that_fails_changes_no_bit_of_lightning(broken: dict[str, Any]) -> None:
    callback = GradientMonitor(**{"sinks": (), **SETTINGS, **broken})
    assert differences(lightning_prints(ALONE, callback), lightning_prints(ALONE)) == []


# -- clipping --------------------------------------------------------------------------------------------------------

LIMIT = 0.05


class TorchClips(Watcher):
    """What the loop looks like without gradwatch."""

    def __init__(
        self, clip: Callable[..., Any], model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any
    ) -> None:
        self.clip, self.model, self.optimizer, self.scaler = clip, model, optimizer, scaler

    def gradients_are_complete(self) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self.clip(self.model.parameters(), LIMIT)


class Clips(ByHand):
    """The same by ``Monitor(clip=...)``, which unscales by itself."""

    def gradients_are_complete(self) -> None:
        self.monitor.step()


class ClipsInPlaceOfTorch(Clips):
    """The same by ``monitor.clip_grad_norm_``."""

    def __init__(self, *given: Any, clip: Any) -> None:
        super().__init__(*given)

    def gradients_are_complete(self) -> None:
        self.monitor.clip_grad_norm_(LIMIT)


POLICIES = {
    "norm": (nn.utils.clip_grad_norm_, gw.clipping.GlobalNorm(LIMIT)),
    "value": (nn.utils.clip_grad_value_, gw.clipping.Value(LIMIT)),
}


class ClipsByHooks(ByHooks):
    """The same by ``gw.watch(clip=...)``."""

    def __init__(self, *given: Any, clip: Any) -> None:
        super().__init__(*given, clip=clip)
        for hook in self.hooks:  # that the gradients are left alone
            hook.remove()


@pytest.mark.parametrize(
    ("watcher", "policy"),
    [(Clips, "norm"), (Clips, "value"), (ClipsByHooks, "norm"), (ClipsByHooks, "value"), (ClipsInPlaceOfTorch, "norm")],
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_clipped_is_that_of_torch(case: Case, watcher: Callable[..., Watcher], policy: str) -> None:
    theirs, ours = POLICIES[policy]
    expected = Training(case, partial(TorchClips, theirs), EXPLOSION).prints()
    assert differences(Training(case, partial(watcher, clip=ours), EXPLOSION).prints(), expected) == []


@pytest.mark.parametrize(
    "scale",
    [1024.0, 1000.0],
)
def test_a_policy_with_nothing_to_clip_changes_no_scaled_gradient(scale: float) -> None:
    training = Training(Case("AdamW", "float32"))
    training.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    training.backward(step=0)
    before = printed([p.grad for p in training.model.parameters()])
    clip = gw.clipping.GlobalNorm(1e9)
    gw.Monitor(training.model, scaler=training.scaler, clip=clip, sinks=(), strict=True).step()
    assert printed([p.grad for p in training.model.parameters()]) == before


LIGHTNING_CLIPS = [case for case in CASES if case.optimizer != "AdamW, fused" or case.precision == "float32"]
"""Lightning refuses to clip with a fused optimizer in mixed precision."""


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", LIGHTNING_CLIPS, ids=str)
def test_lightning_clipped_is_that_of_the_trainer(case: Case, policy: str) -> None:
    callback = GradientMonitor(clip=POLICIES[policy][1], sinks=(), strict=True, **SETTINGS)
    ours = lightning_prints(case, callback, factors=EXPLOSION)
    clips = {"gradient_clip_val": LIMIT, "gradient_clip_algorithm": policy}
    assert differences(ours, lightning_prints(case, factors=EXPLOSION, **clips)) == []


# -- saved and copied ------------------------------------------------------------------------------------------------


def saved_and_loaded(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("watcher", WATCHERS)
@pytest.mark.parametrize("case", [ALONE, SCALED], ids=str)
def test_copied_while_watched_as_before(case: Case, watcher: str, how: str) -> None:
    prints = []
    for watch in (partial(WATCHERS[watcher], strict=True), Watcher):
        training = Training(case, watch)
        training.prints(close=False)
        copies = COPIES[how]((training.model, training.optimizer, training.scaler))
        model, optimizer, scaler = copies
        left = [sorted(vars(model)), sorted(vars(optimizer)), hook_counts(optimizer)]
        prints.append(while_watched(*copies) | {"copies": left})
        assert scaler is None or scaler.step.__func__ is torch.amp.GradScaler.step
        training.watcher.close()
    assert differences(prints[:1], prints[1:]) == []


def test_a_lightning_checkpoint_is_as_before_but_for_the_callback(tmp_path: Path) -> None:
    class Saves(pytorch_lightning.Callback):
        def __init__(self, path: Path) -> None:
            self.path = path

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(self.path)

    contents = []
    for name, callbacks in {"watched": [GradientMonitor(sinks=(), strict=True)], "plain": []}.items():
        lightning_prints(Case("AdamW", "float32"), *callbacks, Saves(tmp_path / name))
        contents.append(torch.load(tmp_path / name, weights_only=True))
    ours, theirs = contents
    assert [key.startswith("GradientMonitor") for key in ours.pop("callbacks")] == [True]
    assert theirs.pop("callbacks") == {}
    assert printed(ours) == printed(theirs)


# -- and the fingerprint itself --------------------------------------------------------------------------------------

DISTURBANCES: dict[str, Callable[[Training], Any]] = {
    "random of torch": lambda t: torch.rand(1),
    "random of NumPy": lambda t: np.random.rand(),
    "random of Python": lambda t: random.random(),
    "a parameter, by one bit": lambda t: t.model.unused.weight.data.view(torch.int32)[0, 0].add_(1),
    "a buffer": lambda t: t.model.body[1].running_mean.add_(1e-3),
    "a gradient": lambda t: t.model.body[4].weight.grad.mul_(1 + 1e-6),
    "a gradient's strides": lambda t: setattr(
        t.model.body[4].weight, "grad", t.model.body[4].weight.grad.t().contiguous().t()
    ),
    "a gradient where there was none": lambda t: setattr(t.model.unused.weight, "grad", torch.zeros(3, 3)),
    "a gradient that is gone": lambda t: setattr(t.model.body[4].weight, "grad", None),
    "a number of the optimizer": lambda t: t.optimizer.param_groups[0].update(lr=0.010000001),
    "a tensor of the optimizer": lambda t: t.optimizer.state[t.model.body[4].weight]["exp_avg"].mul_(1 + 1e-6),
    "a key of the optimizer's state": lambda t: t.optimizer.state[t.model.unused.weight],
    "requires_grad": lambda t: t.model.unused.weight.requires_grad_(False),
    "eval": lambda t: t.model.body[2].eval(),
    "an attribute of a module": lambda t: setattr(t.model.body, "monitor", 1),
    "a hook of a module": lambda t: t.model.body[1].register_forward_hook(lambda *_: None),
    "a hook of a parameter": lambda t: t.model.unused.weight.register_hook(lambda g: None),
    "a hook on the accumulation": lambda t: t.model.unused.weight.register_post_accumulate_grad_hook(lambda p: None),
    "gradients switched off": lambda t: torch.set_grad_enabled(False),
    "threads": lambda t: torch.set_num_threads(torch.get_num_threads() + 1),
    "warnings": lambda t: warnings.simplefilter("once"),
    "NumPy's errors": lambda t: np.seterr(all="print"),
    "the default dtype": lambda t: torch.set_default_dtype(torch.float64),
}


@pytest.fixture
def undone() -> Iterator[None]:
    """What a disturbance changes in the process is put back."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with warnings.catch_warnings(), np.errstate(), torch.enable_grad():
        yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


@pytest.mark.parametrize("what", DISTURBANCES)
def test_the_fingerprint_sees(what: str, undone: None) -> None:
    training = Training(Case("AdamW", "float32"), factors={})
    training.prints()
    before = fingerprint(training.model, training.optimizer)
    assert differences([fingerprint(training.model, training.optimizer)], [before]) == []
    DISTURBANCES[what](training)
    assert len(differences([fingerprint(training.model, training.optimizer)], [before])) == 1


def test_the_fingerprint_sees_another_tensor_in_the_same_place() -> None:
    gradient = torch.ones(3)
    before = identities([gradient, None])
    assert identities([gradient, None]) == before
    assert identities([gradient.clone(), None]) != before
    assert identities([gradient.mul_(1.0), None]) != before
