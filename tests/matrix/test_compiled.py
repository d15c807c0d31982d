"""Norms of compiled training, and that watching it adds no graph, no graph break and no recompilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.nn.utils import clip_grad_norm_

import gradwatch as gw
from tests.matrix.reference import Loss, assert_norms, losses, network, norms_now, twin_norms
from tests.matrix.table import Group

cell = Group("torch.compile")

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # by the tracer
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

WITHIN = 1e-5


Watch = Callable[[nn.Module, torch.optim.Optimizer], gw.Monitor | None]
"""Starts to watch, or does not."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing compiled before."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Work(NamedTuple):
    """What the compiler did."""

    graphs: int
    operations: int
    breaks: int


def compared(run: Callable[[CompileCounterWithBackend, Watch], None], backend: str = "eager") -> tuple[Work, Work]:
    """The compiler's work for ``run`` unwatched and watched."""

    def work(watch: Watch) -> Work:
        torch._dynamo.reset()
        counters.clear()
        counter = CompileCounterWithBackend(backend)
        run(counter, watch)
        return Work(counter.frame_count, counter.op_count, sum(counters["graph_break"].values()))

    return work(lambda model, optimizer: None), work(watched)


def watched(model: nn.Module, optimizer: torch.optim.Optimizer) -> gw.Monitor:
    return gw.watch(model, optimizer, sinks=(), strict=True, histogram_every_n_steps=2)


class Net(nn.Module):
    """A model of its own class: ``nn.Module.compile`` finds nothing to compile in a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


Step = Callable[[Loss], None]
"""One training step: it ends with the optimizer's."""


def train(model: nn.Module, monitor: gw.Monitor | None, step: Step, steps: int = 4) -> None:
    """``model`` is not compiled; a float64 copy of it gives the reference of every step."""
    for loss in losses(steps):
        truth = twin_norms(model, [loss])
        step(loss)
        if monitor is not None:
            assert_norms(monitor, norms_now(model))
            assert_norms(monitor, truth, WITHIN)
    assert monitor is None or monitor.history.steps.tolist() == [*range(steps)]


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """By hand, with ``model`` in whatever shape."""

    def step(loss: Loss) -> None:
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()

    return step


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01)


# -- compiled models -------------------------------------------------------------------------------------------------


@cell("a model compiled before it is watched", within=WITHIN)
@cell("a model compiled after watching began", within=WITHIN)
@cell("a model compiled in place by model.compile()", within=WITHIN)
@cell("a compiled block within a model", within=WITHIN)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("how", ["before", "after", "in place", "a block"])
def test_a_compiled_model(how: str, backend: str) -> None:
    """fullgraph=True: a graph break would be an error."""

    def run(counter: CompileCounterWithBackend, watch: Watch) -> None:
        model = nn.Sequential(Net()) if how == "a block" else Net()
        settings: dict[str, Any] = {"backend": counter, "fullgraph": True}
        compiled: nn.Module = torch.compile(model, **settings) if how == "before" else model  # type: ignore[assignment]
        if how == "a block":
            model[0].compile(**settings)
        monitor = watch(compiled, optimizer := adamw(compiled))
        if how == "after":
            compiled = torch.compile(model, **settings)  # type: ignore[assignment]
        elif how == "in place":
            model.compile(**settings)
        train(model, monitor, plain_step(compiled, optimizer))

    unwatched, now = compared(run, backend)
    assert now == unwatched
    assert (now.graphs, now.breaks) == (1, 0)


@cell("names of a compiled model's layers: as if it were not compiled")
def test_names() -> None:
    layers = ["net.fc1", "net.fc2", "net.fc3"]
    model = Net()
    assert [layer.name for layer in gw.Monitor(torch.compile(model), sinks=()).layers] == layers
    model.net.fc2 = torch.compile(model.net.fc2)
    assert [layer.name for layer in gw.Monitor(model, sinks=()).layers] == layers


@cell("inputs of changing size: as many recompilations as without", within=WITHIN)
def test_changing_sizes() -> None:
    def run(counter: CompileCounterWithBackend, watch: Watch) -> None:
        model = Net()
        compiled = torch.compile(model, backend=counter)
        optimizer = adamw(model)
        monitor = watch(compiled, optimizer)
        for size in (5, 5, 9, 9, 13):
            optimizer.zero_grad()
            compiled(torch.randn(size, 8)).square().mean().backward()
            used = norms_now(model)
            optimizer.step()
            if monitor is not None:
                assert_norms(monitor, used)

    unwatched, now = compared(run)
    assert now == unwatched
    assert now.graphs == 2  # the second one is for any size


@cell("the default backend, inductor", within=WITHIN)
@pytest.mark.slow
def test_inductor() -> None:
    model = Net()
    optimizer = adamw(model)
    with watched(model, optimizer) as monitor:
        train(model, monitor, plain_step(torch.compile(model, fullgraph=True), optimizer))  # type: ignore[arg-type]


# -- compiled optimizers ---------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    "AdamW": adamw,
    "Adam, foreach": lambda model: torch.optim.Adam(model.parameters(), lr=0.01, foreach=True),
}


@cell("a compiled optimizer.step", within=WITHIN)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_optimizer(name: str) -> None:
    """The optimizer breaks its graph by itself; the hooks run between the parts."""

    def run(counter: CompileCounterWithBackend, watch: Watch) -> None:
        model = Net()
        optimizer = OPTIMIZERS[name](model)
        monitor = watch(model, optimizer)
        compiled = torch.compile(optimizer.step, backend=counter)

        def step(loss: Loss) -> None:
            optimizer.zero_grad()
            loss(model).backward()
            compiled()

        train(model, monitor, step)

    unwatched, now = compared(run)
    assert (now.graphs, now.operations) == (unwatched.graphs, unwatched.operations)
    assert now.breaks <= unwatched.breaks


@cell("watching begun and ended while a compiled optimizer.step is in use", within=1e-6)
def test_a_compiled_optimizer_watched_for_a_while() -> None:
    counter = CompileCounterWithBackend("eager")
    model = Net()
    optimizer = adamw(model)
    step = torch.compile(optimizer.step, backend=counter)
    monitor = None
    for number, loss in enumerate(losses(6)):
        if number == 2:
            monitor = watched(model, optimizer)
        elif number == 4 and monitor is not None:
            monitor.close()
        optimizer.zero_grad()
        loss(model).backward()
        used = norms_now(model)
        step()
        if number in (2, 3) and monitor is not None:
            assert_norms(monitor, used)
    assert monitor is not None
    assert len(monitor.history) == 2
    assert counter.frame_count == 1


# -- whole steps -----------------------------------------------------------------------------------------------------


@cell("a whole training step compiled, with the optimizer's hooks", within=WITHIN)
@cell("a whole training step compiled, with monitor.step() in it", within=WITHIN)
@cell("a whole training step compiled, with monitor.clip_grad_norm_() in it", within=WITHIN)
@pytest.mark.parametrize("how", ["hooks", "step", "clip_grad_norm_"])
def test_a_whole_step(how: str) -> None:
    """backward() and the optimizer break it by themselves."""

    def run(counter: CompileCounterWithBackend, watch: Watch) -> None:
        model = Net()
        optimizer = adamw(model)
        monitor = watch(model, optimizer)

        @torch.compile(backend=counter)
        def whole(loss: Loss) -> None:
            loss(model).backward()
            if monitor is not None and how == "step":
                monitor.step()
            elif monitor is not None and how == "clip_grad_norm_":
                monitor.clip_grad_norm_(1e9)
            optimizer.step()

        def step(loss: Loss) -> None:
            optimizer.zero_grad()
            whole(loss)

        train(model, monitor, step)

    unwatched, now = compared(run)
    assert (now.graphs, now.operations) == (unwatched.graphs, unwatched.operations)


@cell("a compiled step that clips by monitor.clip_grad_norm_(): bit for bit as by torch's")
def test_clipping_in_a_compiled_step() -> None:
    trained = []
    for ours in (True, False):
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        clip = watched(model, optimizer).clip_grad_norm_ if ours else partial(clip_grad_norm_, [*model.parameters()])
        trained.append(clipped(model, optimizer, clip))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*trained))


def clipped(model: nn.Module, optimizer: torch.optim.Optimizer, clip: Callable[[float], Tensor]) -> list[Tensor]:
    """The parameters after some compiled steps."""

    @torch.compile(backend="eager")
    def step(loss: Loss) -> None:
        loss(model).backward()
        clip(0.01)
        optimizer.step()
        optimizer.zero_grad()

    for loss in losses(3):
        step(loss)
    return [p.detach() for p in model.parameters()]


@cell("compiled autograd, by its setting", within=WITHIN)
@cell("compiled autograd, by its context manager", within=WITHIN)
@pytest.mark.parametrize("by", ["setting", "context manager"])
def test_compiled_autograd(by: str) -> None:
    def run(counter: CompileCounterWithBackend, watch: Watch) -> None:
        model = Net()
        optimizer = adamw(model)
        monitor = watch(model, optimizer)

        def forward_and_backward(loss: Loss) -> None:
            loss(model).backward()

        def enabled() -> AbstractContextManager[Any]:
            if by == "setting":
                return nullcontext()
            return torch._dynamo.compiled_autograd._enable(torch.compile(backend=counter))

        def step(loss: Loss) -> None:
            optimizer.zero_grad()
            with enabled():
                body(loss)
            optimizer.step()

        with torch._dynamo.config.patch(compiled_autograd=by == "setting"):
            body = torch.compile(forward_and_backward, backend=counter) if by == "setting" else forward_and_backward
            train(model, monitor, step)
        assert counters["compiled_autograd"]["captures"] > 0

    unwatched, now = compared(run)
    assert now == unwatched


@cell(
    "a whole step with fullgraph=True",
    unknown="torch itself refuses it, for backward() and for the optimizer; watched or not the same error says so",
)
@pytest.mark.parametrize("watching", [False, True])
@pytest.mark.parametrize("what", ["backward", "optimizer"])
def test_fullgraph_steps(what: str, watching: bool) -> None:
    model = Net()
    optimizer = adamw(model)
    monitor = watched(model, optimizer) if watching else None
    (loss,) = losses(1)
    if what == "backward":
        step = torch.compile(lambda: loss(model).backward(), backend="eager", fullgraph=True)
    else:
        loss(model).backward()
        step = torch.compile(optimizer.step, backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        step()
    assert monitor is None or len(monitor.history) == 0
