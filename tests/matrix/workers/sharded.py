"""Cases in which a rank holds a part of the model: FSDP2, HSDP, tensor parallelism, both together, and FSDP1."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from tests.matrix.workers.registry import case
from tests.matrix.workers.training import TRAININGS, Block, Net
from tests.matrix.workers.watched import train


def mesh_of(*sizes: int, names: tuple[str, ...]) -> DeviceMesh:
    return init_device_mesh("cpu", sizes, mesh_dim_names=names)


def sharded(name: str, *, by_block: bool = True, **settings: Any) -> nn.Module:
    """FSDP2, each block on its own and then the rest, or the model as one."""
    model = TRAININGS[name].model()
    for module in list(model.modules()) if by_block else []:
        if isinstance(module, Block):
            fully_shard(module, **settings)
    return fully_shard(model, **settings)


# -- FSDP2 -----------------------------------------------------------------------------------------------------------


@case(2, 4)
def fsdp2_by_block() -> Any:
    return train("net", sharded("net"))


@case(2)
def fsdp2_whole() -> Any:
    return train("net", sharded("net", by_block=False))


@case(2)
def fsdp2_hooked() -> Any:
    return train("net", sharded("net"), hooked=True)


@case(2)
def fsdp2_accumulated() -> Any:
    def sync_at_the_last(model: nn.Module, last: bool) -> AbstractContextManager[None]:
        model.set_requires_gradient_sync(last)
        return nullcontext()

    return train("net in micro-batches", sharded("net in micro-batches"), accumulate=sync_at_the_last)


@case(2)
def fsdp2_mixed_precision() -> Any:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return train("net", sharded("net", mp_policy=policy))


@case(2)
def fsdp2_frozen() -> Any:
    return train("frozen", sharded("frozen"))


@case(2, 4)
def fsdp2_unused() -> Any:
    # Every rank the whole batch: a parameter that only some ranks reach breaks FSDP2's own reduce-scatter.
    return train("branches", sharded("branches"), part=0, parts=1)


@case(2)
def fsdp2_tied() -> Any:
    return train("tied", sharded("tied", by_block=False))


@case(4)
def hsdp() -> Any:
    return train("net", sharded("net", mesh=mesh_of(2, 2, names=("replicate", "shard"))))


def drop_small_elements(model: nn.Module) -> None:
    """So that there are zeros to count."""
    for p in model.parameters():
        local = p.grad.to_local()
        local[local.abs() < 0.02] = 0


@case(2, 4)
def fsdp2_sampled() -> Any:
    return train("net", sharded("net"), after_backward=drop_small_elements, keep=True, histogram_every_n_steps=1)


@case(4)
def hsdp_sampled() -> Any:
    model = sharded("net", mesh=mesh_of(2, 2, names=("replicate", "shard")))
    return train("net", model, after_backward=drop_small_elements, keep=True, histogram_every_n_steps=2)


@case(2)
def fsdp1_sampled() -> Any:
    model = fsdp1("net", ShardingStrategy.FULL_SHARD, True)
    return train("net", model, gather=summoned, keep=True, histogram_every_n_steps=1)


@case(2)
def fsdp2_by_parameter() -> Any:
    return train("net", sharded("net"), granularity="parameter")


@case(2)
def fsdp2_included() -> Any:
    return train("net", sharded("net"), include="blocks.*", exclude="*.norm")


# -- tensor parallelism ----------------------------------------------------------------------------------------------

MEGATRON = {"blocks.*.up": ColwiseParallel(), "blocks.*.down": RowwiseParallel()}
"""Linear layers in pairs; norms and all else are plain tensors, the same on every rank."""


def by_sequence() -> dict[str, ParallelStyle]:
    """Activations between the layers are split along the sequence; the norms are replicated DTensors."""
    return {
        "inp": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
        "blocks.*.norm": SequenceParallel(),
        "blocks.*.up": ColwiseParallel(input_layouts=Shard(1)),
        "blocks.*.down": RowwiseParallel(output_layouts=Shard(1)),
        "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
    }


@case(2, 4)
def tp_megatron() -> Any:
    mesh = mesh_of(dist.get_world_size(), names=("tp",))
    return train("net", parallelize_module(TRAININGS["net"].model(), mesh, MEGATRON), part=0, parts=1)


@case(2)
def tp_by_sequence() -> Any:
    mesh = mesh_of(2, names=("tp",))
    return train("net", parallelize_module(TRAININGS["net"].model(), mesh, by_sequence()), part=0, parts=1)


@case(2)
def tp_by_sequence_sampled() -> Any:
    model = parallelize_module(TRAININGS["net"].model(), mesh_of(2, names=("tp",)), by_sequence())
    return train("net", model, part=0, parts=1, keep=True, histogram_every_n_steps=1)


def fsdp2_and_tp(plan: dict[str, ParallelStyle]) -> Any:
    mesh = mesh_of(2, 2, names=("dp", "tp"))
    model = parallelize_module(TRAININGS["net"].model(), mesh["tp"], plan)
    assert isinstance(model, Net)
    for block in model.blocks:
        fully_shard(block, mesh=mesh["dp"])
    return train("net", fully_shard(model, mesh=mesh["dp"]), part=mesh["dp"].get_local_rank(), parts=2)


@case(4)
def fsdp2_and_tp_by_sequence() -> Any:
    return fsdp2_and_tp(by_sequence())


@case(4)
def fsdp2_and_tp_megatron() -> Any:
    return fsdp2_and_tp(MEGATRON)


@case(4)
def tp_in_replicas() -> Any:
    """Tensor parallelism over two ranks, twice: gradients are averaged by hand over the other dimension."""
    mesh = mesh_of(2, 2, names=("dp", "tp"))
    model = parallelize_module(TRAININGS["net"].model(), mesh["tp"], MEGATRON)

    def average(model: nn.Module) -> None:
        for p in model.parameters():
            local = p.grad.to_local() if hasattr(p.grad, "to_local") else p.grad
            dist.all_reduce(local, group=mesh["dp"].get_group())
            local /= 2

    return train("net", model, part=mesh["dp"].get_local_rank(), parts=2, after_backward=average)


# -- FSDP1 -----------------------------------------------------------------------------------------------------------


def fsdp1(name: str, strategy: ShardingStrategy, use_orig_params: bool, **settings: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises FSDP2
        model = TRAININGS[name].model()
        settings = {"sharding_strategy": strategy, "use_orig_params": use_orig_params, **settings}
        for i, block in enumerate(model.blocks):
            model.blocks[i] = FullyShardedDataParallel(block, device_id=torch.device("cpu"), **settings)
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **settings)


def summoned(model: nn.Module) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Whole parameters and gradients of FSDP1."""
    with FullyShardedDataParallel.summon_full_params(model, with_grads=True, writeback=False):
        return {
            name.replace("_fsdp_wrapped_module.", ""): (p.detach().clone(), None if p.grad is None else p.grad.clone())
            for name, p in model.named_parameters()
        }


def summoned_parameters(model: nn.Module) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Without gradients: torch does not summon those of flat parameters."""
    with FullyShardedDataParallel.summon_full_params(model, writeback=False):
        return {
            name.replace("_fsdp_wrapped_module.", ""): (p.detach().clone(), None)
            for name, p in model.named_parameters()
        }


def fsdp1_original(strategy: ShardingStrategy, **settings: Any) -> Any:
    return train("net", fsdp1("net", strategy, True, **settings), gather=summoned)


@case(2, 4)
def fsdp1_full_shard() -> Any:
    return fsdp1_original(ShardingStrategy.FULL_SHARD)


@case(2)
def fsdp1_shard_grad_op() -> Any:
    return fsdp1_original(ShardingStrategy.SHARD_GRAD_OP)


@case(2)
def fsdp1_no_shard() -> Any:
    return fsdp1_original(ShardingStrategy.NO_SHARD)


@case(4)
def fsdp1_hybrid_shard() -> Any:
    return fsdp1_original(ShardingStrategy.HYBRID_SHARD, device_mesh=mesh_of(2, 2, names=("replicate", "shard")))


@case(2)
def fsdp1_flat() -> Any:
    return train("net", fsdp1("net", ShardingStrategy.FULL_SHARD, False), gather=summoned_parameters)
