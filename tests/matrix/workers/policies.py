"""Clip policies in every way to spread a model, with a spike at one step and a NaN at another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import ShardingStrategy
from torch.distributed.tensor.parallel import parallelize_module

import gradwatch as gw
from gradwatch.clipping import (
    AGC,
    AutoClip,
    Chain,
    GlobalNorm,
    PerGroup,
    PerLayer,
    SkipNonFinite,
    SkipSpike,
    SpikeClip,
    ZClip,
)
from gradwatch.records import to_plain
from tests.matrix.workers.registry import case
from tests.matrix.workers.replicas import ddp
from tests.matrix.workers.sharded import MEGATRON, by_sequence, fsdp1, mesh_of, sharded, summoned
from tests.matrix.workers.training import TRAININGS
from tests.matrix.workers.watched import Gather, gathered, listed, seen

NET = TRAININGS["net"]
STEPS, SPIKE, BAD = 8, 5, 6

VECTORS = ("*.bias", "*.norm", "gain")
"""What FSDP2 shards within a unit."""

POLICIES: dict[str, Callable[[], Any]] = {
    "per_layer": lambda: PerLayer(0.1),
    "per_group": lambda: PerGroup({"blocks.*.down": 0.05, "blocks.*": PerLayer(0.1), "*": 0.2}),
    "agc": lambda: AGC(0.02, exclude=VECTORS),
    "autoclip": lambda: AutoClip(30),
    "zclip": lambda: ZClip(warmup=3),
    "spike_clip": lambda: SpikeClip(warmup=3, factor=2.0),
    "skip_spike": lambda: Chain(SkipSpike(warmup=3), GlobalNorm(0.5)),
}


def scale(step: int) -> float:
    """What the loss of a step is multiplied by."""
    return {SPIKE: 100.0, BAD: float("nan")}.get(step, 1.0)


def clipped(
    build: Callable[[], nn.Module], part: int, parts: int, gather: Gather = gathered, but: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What each policy makes of a training run, by its name."""
    return {name: _run(build(), make(), part, parts, gather) for name, make in POLICIES.items() if name not in but}


def _run(model: nn.Module, policy: Any, part: int, parts: int, gather: Gather) -> Mapping[str, Any]:
    monitor = gw.Monitor(model, clip=Chain(SkipNonFinite(), policy), sinks=(), strict=True)
    optimizer, clips = NET.optimizer(model), []
    for step in range(STEPS):
        optimizer.zero_grad()
        (scale(step) * NET.losses(step, part, parts)[0](model)).backward()
        monitor.step()
        clips.append(to_plain(monitor.report().clip))
        optimizer.step()
    parameters = {name: listed(p)[0] for name, (p, _) in gather(model).items()}
    return seen(monitor) | {"clips": clips, "parameters": parameters}


@case(2)
def policies_ddp() -> Any:
    return clipped(lambda: ddp("net"), dist.get_rank(), 2)


@case(2, 4)
def policies_fsdp2() -> Any:
    return clipped(lambda: sharded("net"), dist.get_rank(), dist.get_world_size())


@case(4)
def policies_hsdp() -> Any:
    mesh = mesh_of(2, 2, names=("replicate", "shard"))
    return clipped(lambda: sharded("net", mesh=mesh), dist.get_rank(), 4)


@case(2)
def policies_tp() -> Any:
    mesh = mesh_of(2, names=("tp",))
    return clipped(lambda: parallelize_module(NET.model(), mesh, MEGATRON), 0, 1, but=("agc",))


@case(2)
def policies_tp_by_sequence() -> Any:
    """Gradients of norms are Partial."""
    mesh = mesh_of(2, names=("tp",))
    return clipped(lambda: parallelize_module(NET.model(), mesh, by_sequence()), 0, 1, but=("agc",))


@case(2)
def policies_fsdp1() -> Any:
    return clipped(
        lambda: fsdp1("net", ShardingStrategy.FULL_SHARD, True), dist.get_rank(), 2, gather=summoned, but=("agc",)
    )


@case(2)
def policies_refused() -> Any:
    """What each says that cannot be right for a sharded model."""
    models = {
        "fsdp1": fsdp1("net", ShardingStrategy.FULL_SHARD, True),
        "flat": fsdp1("net", ShardingStrategy.FULL_SHARD, False),
        "fsdp2": sharded("net"),
        "tp": parallelize_module(NET.model(), mesh_of(2, names=("tp",)), MEGATRON),
    }
    policies = {
        "global_norm": GlobalNorm(1.0),
        "inf": GlobalNorm(1.0, norm_type=float("inf")),
        "per_layer": PerLayer(1.0),
        "agc": AGC(),
        "agc of matrices": AGC(exclude=VECTORS),
    }
    found = {}
    for (name, model), (kind, policy) in ((m, p) for m in models.items() for p in policies.items()):
        try:
            gw.Monitor(model, clip=policy, sinks=())
        except ValueError as error:
            found[f"{kind}, {name}"] = str(error)
    return found


@case(2)
def policies_stop_all_ranks() -> Any:
    """A NaN in one rank's shard, for too long: every rank raises, at the same step."""
    model = sharded("net")
    monitor = gw.Monitor(model, clip=SkipNonFinite(max_consecutive=2), sinks=())
    for step in range(STEPS):
        model.zero_grad()
        NET.losses(step, dist.get_rank(), 2)[0](model).backward()
        if dist.get_rank() == 1:
            local: Any = model.inp.weight.grad
            local.to_local()[0, 0] = torch.nan
        try:
            monitor.step()
        except gw.clipping.TooManySkipped as error:
            return {"step": step, "said": str(error)}
    return None
