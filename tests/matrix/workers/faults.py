"""Cases in which one rank fares otherwise than the others, and who writes what."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn.parallel import DistributedDataParallel

import gradwatch as gw
from tests.matrix.workers.registry import case, start_group
from tests.matrix.workers.replicas import ddp
from tests.matrix.workers.sharded import by_sequence, mesh_of, sharded
from tests.matrix.workers.training import LEARNING_RATE, MOMENTUM, TRAININGS
from tests.matrix.workers.watched import Counted, gathered, listed, sampled, seen

NET = TRAININGS["net"]


def loop(
    model: nn.Module,
    monitor: gw.Monitor | ClippedByCall | None,
    steps: int = NET.steps,
    before_step: Callable[[int], None] = lambda step: None,
    scale: Callable[[int], float] = lambda step: 1.0,
) -> list[list[tuple[str, int]]]:
    """Train with the monitor, if this rank has one; the collectives of each of its steps."""
    optimizer = NET.optimizer(model)
    collectives = []
    for step in range(steps):
        optimizer.zero_grad()
        for loss in NET.losses(step, dist.get_rank(), dist.get_world_size()):
            (scale(step) * loss(model)).backward()
        before_step(step)
        with Counted() as counted:
            if monitor is not None:
                monitor.step()
        collectives.append(counted.calls)
        optimizer.step()
    return collectives


def watched(model: nn.Module, **settings: Any) -> gw.Monitor:
    return gw.Monitor(model, **{"sinks": (), "clip": gw.clipping.GlobalNorm(NET.max_norm), **settings})


def outcome(model: nn.Module, monitor: gw.Monitor, **more: Any) -> dict[str, Any]:
    parameters = {name: p.double().flatten().tolist() for name, (p, _) in gathered(model).items()}
    return seen(monitor) | {"parameters": parameters, **more}


def local_gradients(model: nn.Module) -> list[Tensor]:
    """What this rank holds, where it holds anything."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [local for g in gradients if (local := g.to_local() if hasattr(g, "to_local") else g).numel()]


# -- a part of the monitor fails on one rank -------------------------------------------------------------------------


class BrokenSink:
    def write(self, report: gw.Report) -> None:
        raise OSError("disk full")

    def close(self) -> None: ...


class BrokenOnRank1:
    """A rule."""

    def check(self, history: gw.History) -> Iterable[gw.Alert]:
        if dist.get_rank() == 1:
            raise ValueError("only here")
        return ()


@case(2)
def sink_fails() -> Any:
    model = sharded("net")
    monitor = watched(model, sinks=[BrokenSink()])
    return outcome(model, monitor, collectives=loop(model, monitor))


@case(2)
def rule_fails_on_rank_1() -> Any:
    model = sharded("net")
    monitor = watched(model, rules=[*gw.rules.default(), BrokenOnRank1()])
    return outcome(model, monitor, collectives=loop(model, monitor))


def failing_at(steps: Iterable[int], part: str) -> Callable[..., Any]:
    """On rank 1 ``part``, a function of a module, raises in those of its calls."""
    module, _, name = part.rpartition(".")
    original = getattr(__import__(module, fromlist=[name]), name)
    calls = 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if dist.get_rank() == 1 and calls - 1 in steps:
            raise MemoryError("no room left")
        return original(*args, **kwargs)

    return patch(part, failing)


@case(2)
def measure_fails_on_rank_1() -> Any:
    model = sharded("net")
    monitor = watched(model)
    with failing_at([1], "gradwatch.capture.measure"):
        return outcome(model, monitor, collectives=loop(model, monitor))


@case(2)
def measure_keeps_failing_on_rank_1() -> Any:
    model = sharded("net")
    monitor = watched(model, clip=None)
    with failing_at(range(6), "gradwatch.capture.measure"):
        collectives = loop(model, monitor, steps=8)
    return outcome(model, monitor, collectives=collectives)


@case(2)
def sampling_fails_on_rank_1() -> Any:
    model = sharded("net")
    monitor = watched(model, histogram_every_n_steps=1)
    with failing_at([2], "gradwatch.capture.element_sums"):
        return outcome(model, monitor, collectives=loop(model, monitor), stats=sampled(monitor))


@case(2)
def parameter_sample_fails_on_rank_1() -> Any:
    model = sharded("net")
    monitor = watched(model, histogram_every_n_steps=1)
    with failing_at([1], "gradwatch.capture.ParameterSample"):
        return outcome(model, monitor, collectives=loop(model, monitor), stats=sampled(monitor))


# -- gradients that differ ---------------------------------------------------------------------------------------------


@case(2)
def no_gradients_on_rank_1() -> Any:
    model = sharded("net")
    monitor = watched(model)
    squares = []

    def drop(step: int) -> None:
        if step == 1 and dist.get_rank() == 1:
            for p in model.parameters():
                p.grad = None
        squares.append(sum(float(g.double().square().sum()) for g in local_gradients(model)))

    collectives = loop(model, monitor, before_step=drop)
    return seen(monitor) | {"collectives": collectives, "squares": squares}


@case(2, alone=True)
def no_partial_gradients_on_rank_1() -> Any:
    """Tensor parallelism by sequence, whose norms have gradients of which every rank holds a summand."""
    start_group()
    model = parallelize_module(NET.model(), mesh_of(2, names=("tp",)), by_sequence())
    NET.losses(0)[0](model).backward()
    if dist.get_rank() == 1:
        for p in model.parameters():
            p.grad = None
    monitor = watched(model)
    monitor.step()
    return seen(monitor)


@case(2, 4)
def nan_on_rank_1() -> Any:
    model = sharded("net")
    monitor = watched(model, strict=True)

    def spoil(step: int) -> None:
        if step == 1 and dist.get_rank() == 1:
            local_gradients(model)[0].view(-1)[0] = float("nan")

    collectives = loop(model, monitor, before_step=spoil, steps=2)
    return outcome(model, monitor, collectives=collectives)


@case(2)
def nan_in_the_batch_of_rank_1() -> Any:
    """With DistributedDataParallel the average has the NaN on every rank."""
    model = ddp("net")
    monitor = watched(model, strict=True)

    def scale(step: int) -> float:
        return float("nan") if (step, dist.get_rank()) == (1, 1) else 1.0

    return seen(monitor) | {"collectives": loop(model, monitor, scale=scale)} | seen(monitor)


@case(2)
def a_scaler_skips() -> Any:
    """The gradients on one rank overflow; with it every rank skips the step."""
    model = sharded("net")
    optimizer = NET.optimizer(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = watched(model, strict=True, scaler=scaler)
    for step in range(NET.steps):
        optimizer.zero_grad()
        for loss in NET.losses(step, dist.get_rank(), 2):
            scaler.scale(loss(model)).backward()
        if step == 1 and dist.get_rank() == 1:
            local_gradients(model)[0].view(-1)[0] = float("inf")
        monitor.step()
        scaler.step(optimizer)
        scaler.update()
    return outcome(model, monitor, skipped=monitor.history.skipped.tolist(), scale=scaler.get_scale())


# -- when, and by whom -------------------------------------------------------------------------------------------------


@case(2)
def every_second_step() -> Any:
    model = sharded("net")
    monitor = watched(model, every_n_steps=2, clip=None)
    return {"collectives": loop(model, monitor, steps=5)} | seen(monitor)


@case(2)
def every_second_step_clipped() -> Any:
    model = sharded("net")
    monitor = watched(model, every_n_steps=2)
    return {"collectives": loop(model, monitor)} | outcome(model, monitor)


@case(2)
def clip_grad_norm_in_the_loop() -> Any:
    model = sharded("net")
    monitor = watched(model, clip=None, strict=True)
    totals = []
    collectives = loop(model, ClippedByCall(monitor, totals))
    return outcome(model, monitor, collectives=collectives, returned=totals)


class ClippedByCall:
    """Calls ``clip_grad_norm_`` where the loop calls ``step``."""

    def __init__(self, monitor: gw.Monitor, totals: list[float]) -> None:
        self._monitor, self._totals = monitor, totals

    def step(self) -> None:
        self._totals.append(float(self._monitor.clip_grad_norm_(NET.max_norm)))


@case(2)
def two_optimizers() -> Any:
    """One for the blocks and one for the rest: a step of both is one record."""
    model = sharded("net")
    blocks = list(model.blocks.parameters())
    ids = {id(p) for p in blocks}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimizers = [torch.optim.SGD(group, LEARNING_RATE, MOMENTUM) for group in (blocks, rest)]
    collectives = []
    with gw.watch(model, optimizers, sinks=(), strict=True) as monitor:
        for step in range(NET.steps):
            model.zero_grad()
            NET.losses(step, dist.get_rank(), 2)[0](model).backward()
            with Counted() as counted:
                for optimizer in optimizers:
                    optimizer.step()
            collectives.append(counted.calls)
    return outcome(model, monitor, collectives=collectives)


def clamped(model: nn.Module, part: int, parts: int) -> Any:
    monitor = watched(model, clip=gw.clipping.Value(0.05), strict=True)
    NET.losses(0, part, parts)[0](model).backward()
    before = {name: listed(g)[0] for name, (_, g) in gathered(model).items()}
    monitor.step()
    return {"before": before, "after": {name: listed(g)[0] for name, (_, g) in gathered(model).items()}}


@case(2)
def clamped_shards() -> Any:
    return clamped(sharded("net"), dist.get_rank(), 2)


@case(2)
def clamped_summands() -> Any:
    """Of a Partial gradient no rank has an element to clamp."""
    return clamped(parallelize_module(NET.model(), mesh_of(2, names=("tp",)), by_sequence()), 0, 1)


@case(2)
def rank_0_asks() -> Any:
    """What only rank 0 does between two steps: report, save, look; no other rank takes part."""
    model = sharded("net")
    monitor = watched(model)
    loop(model, monitor, steps=2)
    with Counted() as counted:
        if dist.get_rank() == 0:
            str(monitor.report())
            monitor.state_dict()
            monitor.flush()
    return seen(monitor) | {"asked": counted.calls}


@case(2)
def closed_at_both() -> Any:
    model = sharded("net")
    with watched(model) as monitor:
        before = loop(model, monitor, steps=2)
    monitor.close()
    return {"collectives": before + loop(model, monitor, steps=2)} | seen(monitor)


@case(2)
def resumed() -> Any:
    """The state of rank 0 is what every rank continues from."""
    model = sharded("net")
    with watched(model) as first:
        loop(model, first, steps=2)
    state = [first.state_dict() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(state)
    second = watched(model, strict=True)
    second.load_state_dict(state[0])
    return {"collectives": loop(model, second, steps=1)} | seen(second)


@case(2)
def monitor_on_rank_0_alone() -> Any:
    """Replicas need nobody: with DistributedDataParallel one rank may watch, if it does not clip."""
    model = ddp("net")
    monitor = watched(model, clip=None) if dist.get_rank() == 0 else None
    collectives = loop(model, monitor)
    return {"collectives": collectives} | ({} if monitor is None else seen(monitor))


def sizes_of(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(directory.rglob("*")) if path.is_file()}


def written(model: nn.Module) -> Any:
    """What each rank writes: into a directory of its own, and into one of all."""
    own, of_all = Path(mkdtemp()), Path(os.environ["MATRIX_STORE"]).parent / f"of all {type(model).__name__}"
    memory = gw.sinks.Memory()
    sinks = [memory]
    for directory in (own, of_all):
        sinks += [gw.sinks.JSONL(directory / "lines.jsonl"), gw.sinks.TensorBoard(directory)]
    monitor = watched(model, sinks=sinks, strict=True)
    loop(model, monitor)
    monitor.close()
    dist.barrier()
    return seen(monitor) | {
        "memory": [report.stats.step for report in memory.reports],
        "own": sizes_of(own),
        "of_all": sizes_of(of_all),
        "lines": (of_all / "lines.jsonl").read_text().splitlines(),
    }


@case(2)
def written_in_replicas() -> Any:
    return written(ddp("net"))


@case(2)
def written_in_shards() -> Any:
    return written(sharded("net"))


# -- the group comes late, or breaks -----------------------------------------------------------------------------------


@case(2, alone=True)
def monitor_before_the_group_and_ddp() -> Any:
    model = NET.model()
    own = Path(mkdtemp())
    monitor = watched(model, strict=True, sinks=[gw.sinks.JSONL(own / "lines.jsonl")])
    start_group()
    collectives = loop(DistributedDataParallel(model), monitor)
    return outcome(model, monitor, collectives=collectives, own=sizes_of(own))


@case(2, alone=True)
def monitor_before_the_group_and_fsdp2() -> Any:
    model = NET.model()
    own = Path(mkdtemp())
    monitor = watched(model, strict=True, sinks=[gw.sinks.JSONL(own / "lines.jsonl")])
    start_group()
    fully_shard(model)
    collectives = loop(model, monitor)
    return outcome(model, monitor, collectives=collectives, own=sizes_of(own))


@case(2, alone=True)
def group_destroyed_before_close() -> Any:
    start_group()
    model = sharded("net")
    own = Path(mkdtemp())
    monitor = watched(model, strict=True, sinks=[gw.sinks.JSONL(own / "lines.jsonl")])
    loop(model, monitor)
    dist.destroy_process_group()
    verdict = monitor.report().verdict
    monitor.close()
    return seen(monitor) | {"verdict": verdict, "own": sizes_of(own)}


@case(2, alone=True)
def rank_1_dies() -> Any:
    """Rank 1 is gone when rank 0 measures: rank 0 is told, and goes on as far as it can."""
    start_group()
    model = sharded("net")
    optimizer = NET.optimizer(model)
    monitor = watched(model)
    waited = []
    for step in range(3):
        if step < 2:
            optimizer.zero_grad()
            NET.losses(step, dist.get_rank(), 2)[0](model).backward()
        if (step, dist.get_rank()) == (1, 1):
            os._exit(1)
        start = time.perf_counter()
        monitor.step()
        waited.append(time.perf_counter() - start)
        optimizer.step()
    monitor.close()
    return seen(monitor) | {"waited": waited}


@case(2, alone=True)
def rank_1_measures_one_step_less() -> Any:
    """A mistake in the user's loop: rank 0 measures alone, and waits no longer than the group's timeout."""
    start_group(timeout=3)
    model = sharded("net")
    NET.losses(0, dist.get_rank(), 2)[0](model).backward()
    monitor = watched(model)
    waited = []
    for step in range(3):
        start = time.perf_counter()
        if step == 0 or dist.get_rank() == 0:
            monitor.step()
        waited.append(time.perf_counter() - start)
    if dist.get_rank() == 1:
        time.sleep(4)
    return seen(monitor) | {"waited": waited}
