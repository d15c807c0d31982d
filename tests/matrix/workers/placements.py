"""Gradients with every placement that a DTensor can have, set by hand, so that their norms are known."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

import gradwatch as gw
from tests.matrix.workers.registry import case, start_group
from tests.matrix.workers.watched import Counted, seen, whole

MAX_NORM = 1.0


def full(rows: int = 8, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    """The gradient of a parameter of ``rows`` rows, the same on every rank."""
    return (torch.arange(1.0, 1 + 6 * rows, dtype=torch.float64).view(rows, 6) * scale / 100).to(dtype)


GRADIENTS: dict[str, Tensor] = {
    "plain": full(2),
    "shard 0": full(),
    "shard 0, uneven and empty": full(3),
    "shard 0, one row": full(1),
    "shard 1, uneven": full(),
    "replicate": full(),
    "partial sum": full(),
    "partial average": full(),
    "replicate, shard 0": full(),
    "shard 0, replicate": full(),
    "shard 0, shard 1": full(),
    "shard 0, shard 0": full(),
    "partial, shard 0": full(),
    "shard 1, partial": full(),
    "replicate, partial": full(),
    "slice, shard 0": full(),
    "slice, replicate": full(),
    "slice, partial": full(),
    "other slice, shard 0": full(),
    "ranks 1 and 2, shard 0": full(),
    "ranks 1 and 2, replicate": full(),
    "bfloat16": full(dtype=torch.bfloat16),
    "float64": full(dtype=torch.float64),
    "complex": full().to(torch.complex64) * (1 - 2j),
    "zero": full(scale=0),
    "squares below float32": full(scale=1e-30),
}
"""The whole gradients."""

OVERFLOWING = {
    "squares above float32": full(scale=1e25),
    "zero": full(scale=0),
    "squares below float32": full(scale=1e-30),
}


def meshes() -> dict[str, DeviceMesh]:
    line = init_device_mesh("cpu", (4,), mesh_dim_names=("all",))
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    return {"line": line, "grid": grid, "slice": grid["tp"], "other slice": grid["dp"]}


def placed() -> dict[str, tuple[DeviceMesh | None, list[Placement]]]:
    mesh = meshes()
    line, grid, slice_, other = mesh["line"], mesh["grid"], mesh["slice"], mesh["other slice"]
    some = DeviceMesh("cpu", [1, 2])
    return {
        "plain": (None, []),
        "shard 0": (line, [Shard(0)]),
        "shard 0, uneven and empty": (line, [Shard(0)]),
        "shard 0, one row": (line, [Shard(0)]),
        "shard 1, uneven": (line, [Shard(1)]),
        "replicate": (line, [Replicate()]),
        "partial sum": (line, [Partial()]),
        "partial average": (line, [Partial("avg")]),
        "replicate, shard 0": (grid, [Replicate(), Shard(0)]),
        "shard 0, replicate": (grid, [Shard(0), Replicate()]),
        "shard 0, shard 1": (grid, [Shard(0), Shard(1)]),
        "shard 0, shard 0": (grid, [Shard(0), Shard(0)]),
        "partial, shard 0": (grid, [Partial(), Shard(0)]),
        "shard 1, partial": (grid, [Shard(1), Partial()]),
        "replicate, partial": (grid, [Replicate(), Partial()]),
        "slice, shard 0": (slice_, [Shard(0)]),
        "slice, replicate": (slice_, [Replicate()]),
        "slice, partial": (slice_, [Partial()]),
        "other slice, shard 0": (other, [Shard(0)]),
        "ranks 1 and 2, shard 0": (some, [Shard(0)]),
        "ranks 1 and 2, replicate": (some, [Replicate()]),
        "bfloat16": (line, [Shard(0)]),
        "float64": (line, [Shard(0)]),
        "complex": (line, [Shard(0)]),
        "zero": (line, [Shard(0)]),
        "squares below float32": (grid, [Shard(0), Shard(1)]),
        "squares above float32": (grid, [Shard(0), Shard(1)]),
    }


def place(gradient: Tensor, mesh: DeviceMesh | None, placements: list[Placement]) -> tuple[Tensor, Tensor]:
    """A parameter, and a gradient whose full tensor is ``gradient``."""
    if mesh is None:
        return torch.ones_like(gradient), gradient.clone()
    parameter_like = [Replicate() if p.is_partial() else p for p in placements]
    parameter = distribute_tensor(torch.ones_like(gradient), mesh, parameter_like)
    placed = distribute_tensor(gradient, mesh, parameter_like)
    if parameter_like != placements and mesh.get_coordinate() is not None:
        local = placed.to_local()
        for dim, placement in enumerate(placements):
            if placement.is_partial():  # shares that differ in direction, so that norms of summands do not add up
                first = mesh.get_local_rank(dim) == 0
                share = torch.where(torch.arange(local.numel()).view(local.shape) % 2 == 0, 3.0, -2.0)
                others = (1 - share) / (mesh.size(dim) - 1)
                local = local * (share if first else others)
                if placement == Partial("avg"):
                    local = local * mesh.size(dim)
        placed = DTensor.from_local(local, mesh, placements, run_check=False)
    return parameter, placed


def model_of(gradients: dict[str, Tensor]) -> nn.Module:
    model, table = nn.Module(), placed()
    for name, gradient in gradients.items():
        layer = nn.Module()
        parameter, grad = place(gradient, *table[name])
        layer.weight = nn.Parameter(parameter)
        layer.weight.grad = grad
        model.add_module(f"g: {name}", layer)
    return model


def measured(gradients: dict[str, Tensor]) -> Any:
    model = model_of(gradients)
    monitor = gw.Monitor(model, sinks=(), strict=True, clip=gw.clipping.GlobalNorm(MAX_NORM))
    with Counted() as counted:
        monitor.step()
    result = seen(monitor) | {"collectives": counted.calls, "coefficient": monitor.report().clip.coefficient}
    after = {}
    for name, layer in model.named_children():
        grad = layer.weight.grad
        inside = not isinstance(grad, DTensor) or grad.device_mesh.get_coordinate() is not None
        total = torch.view_as_real(whole(grad)) if inside and grad.is_complex() else whole(grad) if inside else None
        after[name.removeprefix("g: ")] = None if total is None else total.double().flatten().tolist()
    return result | {"after": after}


@case(4)
def placements() -> Any:
    return measured(GRADIENTS)


@case(4)
def overflowing() -> Any:
    return measured(OVERFLOWING)


# -- a pipeline, whose ranks hold different layers ---------------------------------------------------------------------


def stage_norms(mesh: DeviceMesh) -> Any:
    """Ranks 0 and 1 hold one layer, ranks 2 and 3 three, each sharded over ``mesh``."""
    stage = dist.get_rank() // 2
    model = nn.Module()
    for i in range(1 + 2 * stage):
        layer = nn.Module()
        shard_0 = [Replicate()] * (mesh.ndim - 1) + [Shard(0)]
        parameter, gradient = place(full(2 + i), mesh, shard_0)
        layer.weight = nn.Parameter(parameter)
        layer.weight.grad = gradient
        model.add_module(f"stage {stage}, layer {i}", layer)
    monitor = gw.Monitor(model, sinks=(), strict=True)
    monitor.step()
    return seen(monitor)


@case(4, alone=True)
def pipeline_of_one_mesh() -> Any:
    start_group()
    return stage_norms(init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "dp"))["dp"])


@case(4, alone=True)
def pipeline_of_one_mesh_of_three() -> Any:
    start_group()
    return stage_norms(init_device_mesh("cpu", (2, 1, 2), mesh_dim_names=("pp", "dp", "tp"))["dp", "tp"])


@case(4, alone=True)
def on_ranks_1_and_2() -> Any:
    """Every rank has the model, but two of them have nothing of its parameters."""
    start_group()
    mesh, model = DeviceMesh("cpu", [1, 2]), nn.Linear(6, 3, bias=False)
    parameter, gradient = place(full(3), mesh, [Shard(0)])
    model.weight = nn.Parameter(parameter)
    model.weight.grad = gradient
    monitor = gw.Monitor(model, sinks=(), strict=True)
    monitor.step()
    return seen(monitor)


@case(4, alone=True)
def pipeline_of_separate_meshes() -> Any:
    start_group()
    stages = [DeviceMesh("cpu", [0, 1]), DeviceMesh("cpu", [2, 3])]  # every rank takes part in making each
    return stage_norms(stages[dist.get_rank() // 2])
