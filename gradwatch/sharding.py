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

from gradwatch.faults import warn
from gradwatch.records import FloatArray

if TYPE_CHECKING:
    from gradwatch.layers import Gradients


def rank() -> int:
    """This process among those that train together, 0 for one that is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


SUMMED = 1 << 20
"""Elements of gradients that may be Partial for which the one all_reduce has room: those of norms and biases."""


class Part(NamedTuple):
    """What a rank holds of a tensor, and its weight in a sum over all ranks of its mesh."""

    values: Tensor
    weight: float
    share: float = 0.0
    """Of a summand, what it counts in the sum of all."""


def local_part(tensor: Tensor) -> Part:
    """What this rank holds of ``tensor``, which for a plain tensor is everything.

    What the dimensions of a mesh replicate is counted once. A gradient of which every rank holds only a summand
    (Partial) is summed first: a collective of its own, as its elements and not its norm must be added.
    """
    kind = _dtensor()
    if kind is None or not isinstance(tensor, kind):
        return Part(tensor, 1.0)
    whole: Any = tensor
    if is_partial(whole):
        whole = whole.redistribute(placements=[_replicate_if_partial(p) for p in whole.placements])
    mesh = whole.device_mesh
    copies = math.prod(mesh.size(i) for i, placement in enumerate(whole.placements) if placement.is_replicate())
    values = whole.to_local()
    weight = 0.0 if mesh.get_coordinate() is None else 1 / copies  # a rank outside of the mesh has nothing
    return Part(values.wait() if hasattr(values, "wait") else values, weight)


def put_back_(gradient: Tensor, values: Tensor) -> None:
    """Make ``values`` the whole of a Partial gradient: one rank's summand becomes all of it, the others' zero."""
    whole: Any = gradient
    mesh = whole.device_mesh
    summed = [i for i, placement in enumerate(whole.placements) if placement.is_partial()]
    averaged = math.prod(mesh.size(i) for i in summed if whole.placements[i].reduce_op == "avg")
    first = all(mesh.get_local_rank(i) == 0 for i in summed)
    local = whole.to_local()
    local.copy_(values * averaged) if first else local.zero_()


class Sharding:
    """How a model is spread over ranks; made anew when the model changes.

    Args:
        parameters: all S parameters of the model, in an order that is the same on every rank.
        rows: the index of the layer of each.
        fsdp: what FullyShardedDataParallel manages.
    """

    def __init__(self, parameters: Sequence[Tensor], rows: Sequence[int], fsdp: Mapping[int, FSDPParameter]) -> None:
        self.rows = np.array(rows, np.int64)
        self.ndims = np.array([p.ndim for p in parameters], np.int64)
        meshes = list({p.device_mesh: None for p in parameters if hasattr(p, "device_mesh")})
        self.device = _device(meshes, fsdp)
        self.groups, self._ranks = _groups_and_ranks(meshes, fsdp)
        self.size, self.rank = len(self._ranks), self._ranks.index(dist.get_rank())
        self.copies = np.array([_share_of_a_copy(p, fsdp) for p in parameters])
        """float64 [S], how much of a whole copy of each parameter this rank holds. Summed over the ranks it is the
        number of copies, by which all sums are divided."""
        self._plain = np.array([not hasattr(p, "device_mesh") and id(p) not in fsdp for p in parameters])
        self._told = False
        self._slots = {id(p): slot for slot, p in enumerate(parameters)}
        self.summed: dict[int, slice] = {}
        """Of each parameter whose gradient may be Partial, by its slot, where the sum of its elements goes. As ranks
        may not have a gradient at all, the sum must not be a collective of its own."""
        end = 0
        for slot, p in enumerate(parameters):
            if _may_be_partial(p) and end + p.numel() <= SUMMED:
                self.summed[slot] = slice(end, end + p.numel())
                end += p.numel()
        self.summed_numel = end
        numels = [place.stop - place.start for place in self.summed.values()]
        self.slot_of_summed = torch.from_numpy(np.repeat(list(self.summed), numels).astype(np.int64)).to(self.device)

    def localize(self, found: Gradients) -> Gradients:
        """``found`` with this rank's parts of the gradients as values."""
        slots = [self._slots[id(p)] for p in found.parameters]
        parts = [
            _summand(g) if s in self.summed and is_partial(g) else local_part(g) for s, g in zip(slots, found.values)
        ]
        return found._replace(
            values=[part.values for part in parts],
            slots=slots,
            weights=[part.weight for part in parts],
            shares=[part.share for part in parts],
        )

    def compare(self, squares: FloatArray, fourths: FloatArray) -> None:
        """Warn, once, where whole parameters beside sharded ones have gradients that differ from rank to rank.

        Args:
            squares: float64 [S], the mean over the ranks of the square of the norm.
            fourths: float64 [S], the mean over the ranks of that squared.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            differs = self._plain & (fourths > squares * squares * (1 + 1e-6))
        if differs.any() and not self._told:
            self._told = True
            warn(
                f"{int(differs.sum())} parameters are not sharded, and their gradients differ from rank to rank, so "
                "the ranks train different models; their norms are root mean squares over the ranks"
            )

    def global_ranks(self, ranks: Iterable[int]) -> tuple[int, ...]:
        """From positions among the ranks that reduce together to ranks among all."""
        return tuple(self._ranks[r] for r in ranks)


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


def is_sharded(tensor: Any) -> bool:
    """Whether a rank holds only some elements of ``tensor``, a DTensor."""
    placements = getattr(tensor, "placements", ())
    return any(not p.is_replicate() and tensor.device_mesh.size(i) > 1 for i, p in enumerate(placements))


def is_flattened(parameter: Tensor) -> bool:
    """Whether FullyShardedDataParallel has made ``parameter`` a piece of its flat one, or it is that."""
    return bool(getattr(parameter, "_fsdp_flattened", False))


def is_partial(tensor: Any) -> bool:
    """Whether every rank holds only a summand of ``tensor``."""
    return any(placement.is_partial() for placement in getattr(tensor, "placements", ()))


def _may_be_partial(p: Any) -> bool:
    """Whether every rank of a mesh holds all of ``p``: then its gradient may be summands."""
    mesh = getattr(p, "device_mesh", None)
    if mesh is None or mesh.size() == 1 or p.is_complex():
        return False
    return all(placement.is_replicate() for placement in p.placements)


def _summand(gradient: Any) -> Part:
    mesh, share = gradient.device_mesh, 1.0
    for i, placement in enumerate(gradient.placements):
        if placement.is_replicate() or placement.reduce_op == "avg":
            share /= mesh.size(i)
        elif placement.reduce_op != "sum":
            return local_part(gradient)
    return Part(gradient.to_local(), 1 / mesh.size(), share)


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


def _device(meshes: Sequence[Any], fsdp: Mapping[int, FSDPParameter]) -> torch.device:
    for managed in fsdp.values():
        return managed.device
    kind = meshes[0].device_type
    return torch.device(kind) if kind == "cpu" else torch.device(kind, torch.get_device_module(kind).current_device())


def _groups_and_ranks(
    meshes: Sequence[Any], fsdp: Mapping[int, FSDPParameter]
) -> tuple[list[dist.ProcessGroup | None], list[int]]:
    """The groups to sum over one after the other, and the ranks that then know the same.

    All ranks in one group; but where all that is sharded is on one mesh of fewer ranks, as a stage of a pipeline, that
    mesh's dimensions: what the other ranks hold, if anything, is something else, and they reduce on their own.
    """
    everyone: tuple[list[dist.ProcessGroup | None], list[int]] = [None], list(range(dist.get_world_size()))
    if fsdp:
        return everyone
    ranks = [mesh.mesh.flatten().tolist() for mesh in meshes]
    largest = max(range(len(meshes)), key=lambda i: len(ranks[i]))
    if len(ranks[largest]) == dist.get_world_size() or not all(set(others) <= set(ranks[largest]) for others in ranks):
        return everyone
    mesh = meshes[largest]
    if mesh.get_coordinate() is None:  # this rank holds nothing
        return [], [dist.get_rank()]
    return [mesh.get_group(i) for i in range(mesh.ndim) if mesh.size(i) > 1], ranks[largest]
