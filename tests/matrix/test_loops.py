"""Norms in every shape of training loop: which gradients a step of the optimizer uses, and once each."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.integrations.lightning import GradientMonitor
from gradwatch.records import AFTER_CLIPPING
from tests.matrix.reference import Loss, assert_norms, losses, network, norms_now, twin_norms
from tests.matrix.table import Group

cell = Group("Loop shapes")

QUIET: dict[str, Any] = {"sinks": (), "strict": True}

Step = Callable[[Loss], Any]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def check(step: Step, model: nn.Module, monitor: gw.Monitor) -> None:
    """Each ``step(loss)`` trains, and is one record with the norms of the float64 twin."""
    with monitor:
        for i, loss in enumerate(losses(4)):
            truth = twin_norms(model, [loss])
            before = [p.detach().clone() for p in model.parameters()]
            step(loss)
            assert_norms(monitor, truth)
            assert len(monitor.history) == i + 1
            assert not any(torch.equal(p, b) for p, b in zip(model.parameters(), before))
    assert len(monitor.history) == 4
    assert monitor.alerts == []


def plain(model: nn.Module, optimizer: Any) -> Step:
    """The plainest loop there is."""

    def step(loss: Loss) -> None:
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()

    return step


# -- accumulation, zeros, closures -----------------------------------------------------------------------------------


@cell("accumulation over micro-batches, with a partial last window", within=1e-6)
@pytest.mark.parametrize("watched", [True, False])
def test_accumulation(watched: bool) -> None:
    model = network()
    optimizer = sgd(model.parameters())
    monitor = gw.watch(model, optimizer, **QUIET) if watched else gw.Monitor(model, **QUIET)
    micro_batches = [third(loss) for loss in losses(8)]
    with monitor:
        for start in (0, 3, 6):
            window = micro_batches[start : start + 3]
            truth = twin_norms(model, window)
            for loss in window:
                loss(model).backward()
            if not watched:
                monitor.step()
            optimizer.step()
            optimizer.zero_grad()
            assert_norms(monitor, truth)
    assert monitor.history.steps.tolist() == [0, 1, 2]


def third(loss: Loss) -> Loss:
    return lambda model: loss(model) / 3


@cell("zero_grad(set_to_none=False), where a layer without a loss has a gradient of zero", within=1e-6)
def test_gradients_set_to_zero() -> None:
    def without_fc1(model: nn.Module) -> Tensor:
        x = torch.ones(4, 16, dtype=model.fc2.weight.dtype)
        return (model.fc3(torch.tanh(model.fc2(x))) - 1).square().mean()

    model = network()
    optimizer = sgd(model.parameters())
    with gw.watch(model, optimizer, **QUIET) as monitor:
        plain(model, optimizer)(losses(1)[0])
        for _ in range(3):
            truth = twin_norms(model, [without_fc1])
            assert "fc1" not in truth
            optimizer.zero_grad(set_to_none=False)
            without_fc1(model).backward()
            optimizer.step()
            assert_norms(monitor, {"fc1": 0.0, **truth})


@cell("a closure", within=1e-6)
@pytest.mark.parametrize("keyword", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_closure(kind: type[torch.optim.Optimizer], keyword: bool) -> None:
    model = network()
    optimizer = kind(model.parameters(), lr=0.05)
    closure = closure_of(model, optimizer)

    def step(loss: Loss) -> None:
        assert (optimizer.step(closure=closure(loss)) if keyword else optimizer.step(closure(loss))) > 0

    check(step, model, gw.watch(model, optimizer, **QUIET))


@cell("LBFGS, which evaluates its closure several times: the first gradients of the step", within=1e-6)
def test_lbfgs() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    evaluations: list[Loss] = []
    closure = closure_of(model, optimizer, evaluations)
    check(lambda loss: optimizer.step(closure(loss)), model, gw.watch(model, optimizer, **QUIET))
    assert len(evaluations) > 8


def closure_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, evaluations: list[Loss] | None = None
) -> Callable[[Loss], Callable[[], Tensor]]:
    """The closure for a loss."""

    def closure(loss: Loss) -> Callable[[], Tensor]:
        def evaluate() -> Tensor:
            optimizer.zero_grad()
            value = loss(model)
            value.backward()
            if evaluations is not None:
                evaluations.append(loss)
            return value

        return evaluate

    return closure


# -- several optimizers ----------------------------------------------------------------------------------------------


def halves(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The weights and the biases."""
    named = list(model.named_parameters())
    return [p for name, p in named if "weight" in name], [p for name, p in named if "bias" in name]


@cell("two optimizers on one model, as Muon and AdamW: one record for both", within=1e-6)
@pytest.mark.parametrize("muon_first", [True, False])
def test_two_optimizers(muon_first: bool) -> None:
    model = network()
    weights, biases = halves(model)
    pair = [torch.optim.Muon(weights, lr=0.05), torch.optim.AdamW(biases, lr=0.05)]

    def step(loss: Loss) -> None:
        model.zero_grad()
        loss(model).backward()
        for optimizer in pair if muon_first else pair[::-1]:
            optimizer.step()

    check(step, model, gw.watch(model, pair, **QUIET))


@cell("two optimizers, of which one steps every second time", within=1e-6)
def test_an_optimizer_that_steps_now_and_then() -> None:
    model = network()
    always, sometimes = sgd([*model.fc2.parameters(), *model.fc3.parameters()]), sgd(model.fc1.parameters())
    truths = []
    with gw.watch(model, [always, sometimes], **QUIET) as monitor:
        for i, loss in enumerate(losses(5)):
            truth = twin_norms(model, [loss])
            model.zero_grad()
            loss(model).backward()
            always.step()
            if i % 2:
                sometimes.step()
            else:
                del truth["fc1"]
            truths.append([truth.get(name, 0.0) for name in monitor.history.layers or ("fc1", "fc2", "fc3")])
    assert monitor.history.steps.tolist() == [0, 1, 2, 3, 4]
    assert monitor.history.has_grad[:, 0].tolist() == [False, True, False, True, False]
    assert monitor.history.grad_norm.tolist() == [pytest.approx(truth, rel=1e-6) for truth in truths]


@cell(
    "two optimizers, of which the first one in the loop steps every second time",
    unknown="a record may have gradients of two iterations; the norm of each layer is that of its own step",
)
def test_an_optimizer_that_steps_now_and_then_comes_first() -> None:
    model = network()
    sometimes, always = sgd(model.fc1.parameters()), sgd([*model.fc2.parameters(), *model.fc3.parameters()])
    used: dict[str, list[float]] = {"fc1": [], "fc2": [], "fc3": []}
    with gw.watch(model, [sometimes, always], **QUIET) as monitor:
        for i, loss in enumerate(losses(6)):
            truth = twin_norms(model, [loss])
            model.zero_grad()
            loss(model).backward()
            if i % 2:
                sometimes.step()
            always.step()
            for name in used if i % 2 else ("fc2", "fc3"):
                used[name].append(truth[name])
    history = monitor.history
    for i, name in enumerate(history.layers):
        assert history.grad_norm[history.has_grad[:, i], i].tolist() == pytest.approx(used[name], rel=1e-6)


@cell("LBFGS beside another optimizer: one record for both", within=1e-6)
def test_lbfgs_beside_another_optimizer() -> None:
    model = network()
    lbfgs, other = torch.optim.LBFGS(model.fc1.parameters(), max_iter=4), sgd(model.fc3.parameters())
    closure = closure_of(model, lbfgs)
    with gw.watch(model, [lbfgs, other], **QUIET) as monitor:
        for i, loss in enumerate(losses(3)):
            fc1 = twin_norms(model, [loss])["fc1"]
            lbfgs.step(closure(loss))
            fc3 = norms_now(model)["fc3"]  # of the closure's last evaluation
            other.step()
            assert len(monitor.history) == i + 1
            assert_norms(monitor, {"fc1": fc1, "fc3": fc3})


@cell("two optimizers and a GradScaler that skips the step of one", within=1e-6)
def test_two_optimizers_and_a_scaler() -> None:
    model, scaler = network(), torch.amp.GradScaler("cpu", init_scale=64.0)
    optimizers = [sgd(model.fc1.parameters()), sgd([*model.fc2.parameters(), *model.fc3.parameters()])]
    with gw.watch(model, optimizers, scaler=scaler, **QUIET) as monitor:
        for i, loss in enumerate(losses(4)):
            truth = twin_norms(model, [loss])
            model.zero_grad()
            scaler.scale(loss(model)).backward()
            if i == 2:
                truth["fc1"] = float("inf")
                model.fc1.bias.grad[0] = float("inf")
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
            assert_norms(monitor, truth)
    assert monitor.history.skipped.tolist() == [False, False, True, False]
    assert [(a.rule, a.layer) for a in monitor.alerts] == [("skipped", "fc1")]


class GAN(nn.Module):
    """Each network zeroes its own gradients alone, so those that it leaves in the other one are stale."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def losses(self, real: Tensor, noise: Tensor) -> list[tuple[str, Loss]]:
        """Of the critic, then of the generator."""

        def critic_loss(gan: nn.Module) -> Tensor:
            like = next(gan.parameters()).dtype
            fake = gan.generator(noise.to(like)).detach()
            return (gan.critic(fake) - 1).square().mean() + (gan.critic(real.to(like)) + 1).square().mean()

        def generator_loss(gan: nn.Module) -> Tensor:
            return (gan.critic(gan.generator(noise.to(next(gan.parameters()).dtype))) + 1).square().mean()

        return [("critic", critic_loss), ("generator", generator_loss)]

    def truth(self, name: str, loss: Loss) -> dict[str, float]:
        """The norms of the gradients of one of the networks."""
        return {layer: norm for layer, norm in twin_norms(self, [loss]).items() if layer.startswith(name)}


def gan_batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        yield torch.randn(16, 3, generator=generator), torch.randn(16, 4, generator=generator)


@cell("GAN, one monitor of both optimizers: one record per round, without the stale gradients", within=1e-6)
def test_gan() -> None:
    gan = GAN()
    optimizers = {"critic": sgd(gan.critic.parameters()), "generator": sgd(gan.generator.parameters())}
    with gw.watch(gan, list(optimizers.values()), **QUIET) as monitor:
        for i, batch in enumerate(gan_batches()):
            truth: dict[str, float] = {}
            for name, loss in gan.losses(*batch):
                truth |= gan.truth(name, loss)
                optimizers[name].zero_grad()
                loss(gan).backward()
                optimizers[name].step()
            assert_norms(monitor, {name: truth[name] for name in monitor.history.layers})
            assert len(monitor.history) == i + 1


@cell("GAN, a monitor with optimizer= for each network", within=1e-6)
@pytest.mark.parametrize("watched", [True, False])
def test_gan_with_two_monitors(watched: bool) -> None:
    gan = GAN()
    optimizers = {"critic": sgd(gan.critic.parameters()), "generator": sgd(gan.generator.parameters())}
    monitors = {
        name: gw.watch(gan, one, **QUIET) if watched else gw.Monitor(gan, optimizer=one, **QUIET)
        for name, one in optimizers.items()
    }
    for batch in gan_batches():
        for name, loss in gan.losses(*batch):
            truth = gan.truth(name, loss)
            optimizers[name].zero_grad()
            loss(gan).backward()
            if not watched:
                monitors[name].step()
            optimizers[name].step()
            assert_norms(monitors[name], truth)
    assert [len(monitor.history) for monitor in monitors.values()] == [4, 4]


@cell("an optimizer per parameter that steps inside the backward", within=1e-6)
def test_optimizer_in_backward() -> None:
    model = network()
    optimizers = {p: sgd([p]) for p in model.parameters()}

    def step_now(p: Tensor) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step_now)
    check(lambda loss: loss(model).backward(), model, gw.watch(model, optimizers.values(), **QUIET))
    assert all(p.grad is None for p in model.parameters())


# -- optimizers of one's own -----------------------------------------------------------------------------------------


class Parent(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Child(Parent):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@cell("an optimizer whose step() calls super().step()", within=1e-6)
@pytest.mark.parametrize("kind", [Parent, Child])
@pytest.mark.parametrize("closure", [True, False])
def test_super_step(kind: type[torch.optim.SGD], closure: bool) -> None:
    Parent([nn.Parameter(torch.ones(1))], lr=0.1)  # torch hooks a class with its first object, so this nests the hooks
    model = network()
    optimizer = kind(model.parameters(), lr=0.05)
    with_closure = closure_of(model, optimizer)
    step = (lambda loss: optimizer.step(with_closure(loss))) if closure else plain(model, optimizer)
    check(step, model, gw.watch(model, optimizer, **QUIET))


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation as its first public implementation has it (Foret et al., ICLR 2021)."""

    def __init__(self, parameters: Iterable[Tensor], base: type[torch.optim.Optimizer], **arguments: Any) -> None:
        super().__init__(parameters, {"rho": 0.05, **arguments})
        self.base_optimizer = base(self.param_groups, **arguments)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        """To where the loss is highest nearby."""
        norm = torch.stack([p.grad.norm() for group in self.param_groups for p in group["params"]]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.detach().clone()
                p.add_(p.grad * group["rho"] / norm)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """From where it was, with the gradient from there."""
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"])
        self.base_optimizer.step()
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.first_step()
        torch.enable_grad()(closure)()
        self.second_step()


@cell("SAM, first_step() and second_step(): the gradients that the base optimizer uses", within=1e-6)
@pytest.mark.parametrize(
    "watch",
    [
        "SAM",
        "its base optimizer",
    ],
)
def test_sam_by_hand(watch: str) -> None:
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.05)
    with gw.watch(model, optimizer if watch == "SAM" else optimizer.base_optimizer, **QUIET) as monitor:
        for i, loss in enumerate(losses(4)):
            loss(model).backward()
            optimizer.first_step()
            truth = twin_norms(model, [loss])
            loss(model).backward()
            optimizer.second_step()
            assert len(monitor.history) == i + 1
            assert_norms(monitor, truth)


@cell("SAM, step(closure): the gradients that the base optimizer uses", within=1e-6)
def test_sam_with_a_closure() -> None:
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.05)
    truths: list[dict[str, float]] = []
    with gw.watch(model, optimizer, **QUIET) as monitor:
        for i, loss in enumerate(losses(4)):

            def closure(loss: Loss = loss) -> None:
                truths.append(twin_norms(model, [loss]))
                loss(model).backward()

            loss(model).backward()
            optimizer.step(closure)
            assert len(monitor.history) == len(truths) == i + 1
            assert_norms(monitor, truths[-1])


class Lookahead:
    """Slow weights that follow the fast ones (Zhang et al., NeurIPS 2019), around any optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups, self.steps = optimizer, optimizer.param_groups, 0
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self, closure: Any = None) -> Any:
        value = self.optimizer.step(closure)
        self.steps += 1
        if self.steps % 2 == 0:
            with torch.no_grad():
                for slow, p in zip(self.slow, (p for group in self.param_groups for p in group["params"])):
                    p.copy_(slow.lerp_(p, 0.5))
        return value


class LookaheadOptimizer(Lookahead, torch.optim.Optimizer):
    """The same as an optimizer by its class, without the base class's own attributes."""


@cell("a wrapper in the manner of Lookahead", within=1e-6)
@pytest.mark.parametrize("kind", [Lookahead, LookaheadOptimizer])
def test_lookahead(kind: type[Lookahead]) -> None:
    model = network()
    optimizer = kind(torch.optim.AdamW(model.parameters(), lr=0.05))
    check(plain(model, optimizer), model, gw.watch(model, optimizer, **QUIET))  # type: ignore[arg-type]


# -- schedulers and patches ------------------------------------------------------------------------------------------

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=5),
    "CosineAnnealingWarmRestarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
}


@cell("a learning rate scheduler, which replaces optimizer.step", within=1e-6)
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("watched_first", [True, False])
def test_scheduler(name: str, watched_first: bool) -> None:
    model = network()
    optimizer = sgd(model.parameters())
    if watched_first:
        monitor = gw.watch(model, optimizer, **QUIET)
        scheduler = SCHEDULERS[name](optimizer)
    else:
        scheduler = SCHEDULERS[name](optimizer)
        monitor = gw.watch(model, optimizer, **QUIET)
    step, rates = plain(model, optimizer), []

    def scheduled(loss: Loss) -> None:
        step(loss)
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])

    check(scheduled, model, monitor)
    assert len(set(rates)) > 1


@cell("optimizer.step replaced on the object by one that calls it", within=1e-6)
@pytest.mark.parametrize("watched_first", [True, False])
def test_step_replaced_by_a_wrapper(watched_first: bool) -> None:
    model = network()
    optimizer = sgd(model.parameters())
    original, calls = optimizer.step, []

    def counted(self: torch.optim.Optimizer, closure: Any = None) -> Any:
        calls.append(closure)
        return original(closure)

    monitor = gw.watch(model, optimizer, **QUIET) if watched_first else None
    optimizer.step = types.MethodType(counted, optimizer)  # type: ignore[method-assign]
    check(plain(model, optimizer), model, monitor or gw.watch(model, optimizer, **QUIET))
    assert len(calls) == 4


@cell(
    "optimizer.step replaced on the object by one that does not call it",
    unknown='hooks do not run; the verdict is "no step was recorded yet"',
)
def test_step_replaced_by_something_else() -> None:
    model = network()
    optimizer = sgd(model.parameters())

    @torch.no_grad()
    def own_step() -> None:
        for p in model.parameters():
            p.sub_(0.1 * p.grad)

    optimizer.step = own_step  # type: ignore[assignment, method-assign]
    with gw.watch(model, optimizer, **QUIET) as monitor:
        plain(model, optimizer)(losses(1)[0])
    assert monitor.report().verdict == "no step was recorded yet"


# -- frameworks ------------------------------------------------------------------------------------------------------


@cell("Lightning, manual optimization of a GAN: one record per step of an optimizer", within=1e-6)
def test_lightning_manual_optimization() -> None:
    pl = pytest.importorskip("pytorch_lightning")
    gan, truths = GAN(), []

    class Manual(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.gan = gan

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            optimizers = dict(zip(("critic", "generator"), self.optimizers()))
            for name, loss in gan.losses(*batch):
                truths.append({f"gan.{layer}": norm for layer, norm in gan.truth(name, loss).items()})
                optimizers[name].zero_grad()
                self.manual_backward(loss(gan))
                optimizers[name].step()
                assert_norms(callback.monitor, truths[-1])

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [sgd(gan.critic.parameters()), sgd(gan.generator.parameters())]

    callback = GradientMonitor(**QUIET)
    trainer = pl.Trainer(barebones=True, accelerator="cpu", max_epochs=1, callbacks=[callback])
    trainer.fit(Manual(), torch.utils.data.DataLoader(list(gan_batches()), batch_size=None))
    assert callback.monitor.history.steps.tolist() == list(range(8))
    assert callback.monitor.history.latest.captured == AFTER_CLIPPING


@cell("Lightning Fabric", within=1e-6)
@pytest.mark.parametrize(
    "watched",
    [
        "before setup()",
        "after setup()",
    ],
)
def test_fabric(watched: str) -> None:
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    model = network()
    optimizer = sgd(model.parameters())
    monitor = gw.watch(model, optimizer, **QUIET) if watched == "before setup()" else None
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    monitor = monitor or gw.watch(wrapped, wrapped_optimizer, **QUIET)

    def step(loss: Loss) -> None:
        wrapped_optimizer.zero_grad()
        with fabric.no_backward_sync(wrapped, enabled=False):
            fabric.backward(loss(wrapped))
        wrapped_optimizer.step()

    check(step, model, monitor)


@cell("Accelerate, which steps when it has accumulated enough micro-batches", within=1e-6)
@pytest.mark.parametrize("watched", ["before prepare()", "after prepare()"])
def test_accelerate(watched: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    optimizer = sgd(model.parameters())
    monitor = gw.watch(model, optimizer, **QUIET) if watched == "before prepare()" else None
    prepared, wrapped = accelerator.prepare(model, optimizer)
    monitor = monitor or gw.watch(prepared, wrapped, **QUIET)
    batches = losses(6)
    with monitor:
        for i, loss in enumerate(batches):
            if i % 2 == 0:
                truth = twin_norms(model, [half(one) for one in batches[i : i + 2]])
            with accelerator.accumulate(prepared):
                accelerator.backward(loss(prepared))
                wrapped.step()
                wrapped.zero_grad()
            assert len(monitor.history) == (i + 1) // 2
            if i % 2:
                assert_norms(monitor, truth)
    accelerator.free_memory()


def half(loss: Loss) -> Loss:
    return lambda model: loss(model) / 2
