"""Sharded models: which part of each gradient this rank holds, and what it counts in a sum over the ranks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from gradwatch.layers import Gradients


def rank() -> int:
    """This process among those that train together, 0 for one that is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class Part(NamedTuple):
    """What a rank holds of a tensor, and its weight in a sum over all ranks of its mesh."""

    values: Tensor
    weight: float


def local_part(tensor: Tensor) -> Part:
    """What this rank holds of ``tensor``, which for a plain tensor is everything.

    What the dimensions of a mesh replicate is counted once. A gradient of which every rank holds only a summand
    (Partial) is summed first: a collective of its own, as its elements and not its norm must be added.
    """
    kind = _dtensor()
    if kind is None or not isinstance(tensor, kind):
        return Part(tensor, 1.0)
    whole: Any = tensor
    if any(placement.is_partial() for placement in whole.placements):
        whole = whole.redistribute(placements=[_replicate_if_partial(p) for p in whole.placements])
    mesh = whole.device_mesh
    copies = math.prod(mesh.size(i) for i, placement in enumerate(whole.placements) if placement.is_replicate())
    values = whole.to_local()
    return Part(values.wait() if hasattr(values, "wait") else values, 1 / copies)


class Sharding:
    """How a model is spread over ranks; made anew when the model changes.

    Args:
        parameters: all S parameters of the model, in an order that is the same on every rank.
        rows: the index of the layer of each.
        fsdp: what FullyShardedDataParallel manages.
    """

    def __init__(self, parameters: Sequence[Tensor], rows: Sequence[int], fsdp: Mapping[int, FSDPParameter]) -> None:
        self.rows = np.array(rows, np.int64)
        self.group, self.device = _group_and_device(parameters, fsdp)
        self.size, self.rank = dist.get_world_size(self.group), dist.get_rank(self.group)
        self.copies = np.array([_share_of_a_copy(p, fsdp) for p in parameters])
        """float64 [S], how much of a whole copy of each parameter this rank holds. Summed over the ranks it is the
        number of copies, by which all sums are divided."""
        self._slots = {id(p): slot for slot, p in enumerate(parameters)}

    def localize(self, found: Gradients) -> Gradients:
        """``found`` with this rank's parts of the gradients as values."""
        parts = [local_part(gradient) for gradient in found.values]
        return found._replace(
            values=[part.values for part in parts],
            slots=[self._slots[id(p)] for p in found.parameters],
            weights=[part.weight for part in parts],
        )

    def global_ranks(self, ranks: Iterable[int]) -> tuple[int, ...]:
        """From ranks of the group to ranks among all."""
        group = dist.group.WORLD if self.group is None else self.group
        assert group is not None
        return tuple(dist.get_global_rank(group, r) for r in ranks)


class FSDPParameter(NamedTuple):
    """A parameter of FullyShardedDataParallel, whose local part is all that its tensor shows."""

    ranks: int
    """Ranks that share one copy."""
    numel: int
    device: torch.device


def fsdp_parameters(model: nn.Module) -> dict[int, FSDPParameter]:
    """What FullyShardedDataParallel manages in ``model``, by the id of the parameter."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    if kind is None:
        return {}
    found = {}
    for module in kind.fsdp_modules(model):
        whole = module.sharding_strategy.name == "NO_SHARD"
        ranks = 1 if whole else dist.get_world_size(module.process_group)
        for p, numel in _fsdp_numels(module):
            found[id(p)] = FSDPParameter(ranks, numel, module.compute_device)
    return found


def sharding_of(
    parameters: Sequence[Tensor], rows: Sequence[int], fsdp: Mapping[int, FSDPParameter]
) -> Sharding | None:
    """None where every rank holds whole gradients, as in one process or with DistributedDataParallel."""
    kind = _dtensor()
    spread = fsdp or (kind is not None and any(isinstance(p, kind) for p in parameters))
    return Sharding(parameters, rows, fsdp) if spread else None


def _fsdp_numels(module: Any) -> Iterator[tuple[Tensor, int]]:
    """Each parameter that one FullyShardedDataParallel manages, with the number of elements that it has in all."""
    flat = getattr(module._handle, "flat_param", None)
    if flat is None:
        return
    yield flat, flat._unpadded_unsharded_size.numel()
    if flat._params is not None:
        yield from ((p, shape.numel()) for p, shape in zip(flat._params, flat._shapes))
        aliases = flat._shared_params or ()
        yield from ((p, 0) for p in aliases)


def _dtensor() -> Any:
    """The class DTensor; where nobody has imported it there are none."""
    module = sys.modules.get("torch.distributed.tensor") or sys.modules.get("torch.distributed._tensor")
    return getattr(module, "DTensor", None)


def _replicate_if_partial(placement: Any) -> Any:
    from torch.distributed.tensor import Replicate

    return Replicate() if placement.is_partial() else placement


def _share_of_a_copy(p: Tensor, fsdp: Mapping[int, FSDPParameter]) -> float:
    if id(p) in fsdp:
        return 1 / fsdp[id(p)].ranks
    mesh: Any = getattr(p, "device_mesh", None)
    if mesh is None:
        return 1.0
    return 1 / mesh.size() if mesh.get_coordinate() is not None else 0.0


def _group_and_device(
    parameters: Iterable[Tensor], fsdp: Mapping[int, FSDPParameter]
) -> tuple[dist.ProcessGroup | None, torch.device]:
    """All ranks; or, where all that is sharded is on one slice of a mesh, as a stage of a pipeline, that slice's."""
    for managed in fsdp.values():
        return None, managed.device
    first, *others = {p.device_mesh: None for p in parameters if hasattr(p, "device_mesh")}
    device = torch.device(first.device_type)
    if device.type != "cpu":
        device = torch.device(device.type, torch.get_device_module(device).current_device())
    root = first._get_root_mesh() if hasattr(first, "_get_root_mesh") else first
    # Of a mesh over all ranks each rank is in one of the slices; of another mesh some ranks may not be members.
    sliced = not others and first.ndim == 1 and first.size() < root.size() == dist.get_world_size()
    return first.get_group() if sliced else None, device
