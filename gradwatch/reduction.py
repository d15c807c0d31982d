"""The one all_reduce of a captured step, from which every rank of a sharded model knows the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gradwatch.records import FloatArray
from gradwatch.sampled import Elements, Moved
from gradwatch.sharding import Sharding
from gradwatch.stats import Measured
from gradwatch.verdict import name_ranks

TINY = np.finfo(np.float64).tiny


class Reduction:
    """The vector that one step sends around; its length depends on nothing that one rank alone knows.

    Of each of the S parameters it has the square of the norm, whether there is a gradient, the number of copies, and
    the square of the square, by which it shows that copies differ; of each rank whether it failed and how many of its
    gradients are not finite.

    Args:
        sharding: of the model.
        columns: sums of each parameter that a sampled step adds, 0 between sampled steps.
        moved: whether to send how far the last sampled step moved the parameters.
    """

    def __init__(self, sharding: Sharding, columns: int, moved: bool) -> None:
        ranks, slots = sharding.size, len(sharding.rows)
        self._sharding, self._sampled, self._moved = sharding, columns > 0, moved
        self._parts: dict[str, tuple[int, tuple[int, ...]]] = {}
        """Of each part of the vector where it begins, and its shape."""
        begin = 0
        for name, shape in {
            "failed": (ranks,),
            "nonfinite": (ranks,),
            "unsampled": (1,),
            "unmoved": (1,),
            "squares": (slots,),
            "present": (slots,),
            "copies": (slots,),
            "fourths": (slots,),
            "partial": (len(sharding.summed),),
            "summed": (sharding.summed_numel,),
            "elements": (slots, columns),
            "max_abs": (ranks, slots if columns else 0),
            "moved": (slots, 2 if moved else 0),
        }.items():
            self._parts[name] = begin, shape
            begin += math.prod(shape)
        self._vector: FloatArray = np.zeros(begin)
        self._of(self._vector, "copies")[:] = sharding.copies
        self._norms: tuple[Tensor, Tensor, Tensor] | None = None
        self._summands: list[tuple[int, Tensor]] = []

    def fail(self) -> None:
        """Tell the others that this rank has nothing to add."""
        self._of(self._vector, "failed")[self._sharding.rank] = 1

    def miss(self, part: str) -> None:
        """Tell the others that this rank's "unsampled" or "unmoved" part is missing, so the sum would be wrong."""
        self._of(self._vector, part)[:] = 1

    def add(self, slots: Sequence[int], weights: Sequence[float], norms: Tensor) -> None:
        """Add the norms [P] of this rank's parts of the gradients in ``slots``."""
        if slots:
            self._of(self._vector, "present")[list(slots)] = np.array(weights) > 0
            device = self._sharding.device
            weight = torch.tensor(weights, dtype=torch.float64, device=device)
            self._norms = torch.tensor(slots, device=device), weight, norms.to(device, torch.float64)

    def add_summand(self, slot: int, summand: Tensor) -> None:
        """Add the elements of this rank's summand of the gradient in ``slot``."""
        self._of(self._vector, "partial")[list(self._sharding.summed).index(slot)] = 1
        self._summands.append((slot, summand))

    def add_elements(self, elements: Elements) -> None:
        """Add the sums over the elements of some gradients."""
        self._of(self._vector, "elements")[list(elements.slots)] = elements.sums
        self._of(self._vector, "max_abs")[self._sharding.rank, list(elements.slots)] = elements.max_abs

    def add_moved(self, moved: Moved) -> None:
        """Add how far some parameters moved."""
        self._of(self._vector, "moved")[list(moved.slots)] = moved.squares

    @torch.no_grad()
    def run(self) -> Tensor:
        """The sum of the vectors of all ranks, float64, on the device that they communicate by."""
        vector = torch.from_numpy(self._vector).to(self._sharding.device)
        if self._norms is not None:
            slots, weight, norms = self._norms
            self._of(vector, "squares")[slots] = norms.square() * weight
            self._of(vector, "fourths")[slots] = norms.square().square() * weight
            self._of(vector, "nonfinite")[self._sharding.rank] = (~torch.isfinite(norms)).sum()
        for slot, summand in self._summands:
            self._of(vector, "squares")[slot] = 0  # the norm of a summand says nothing of the sum's
            self._of(vector, "summed")[self._sharding.summed[slot]] = summand.reshape(-1)
        for group in self._sharding.groups:
            dist.all_reduce(vector, group=group)
        if self._sharding.summed:
            of_slot, summed = self._sharding.slot_of_summed, self._of(vector, "summed")
            copies = self._of(vector, "copies")[of_slot].clamp(min=TINY)
            summed /= copies
            self._of(vector, "squares").index_add_(0, of_slot, summed.square() * copies)
        return vector

    def whole(self, vector: Tensor, slot: int, like: Tensor) -> Tensor:
        """The sum of the summands in ``slot``, of the shape and dtype of ``like``."""
        summed: Tensor = self._of(vector, "summed")[self._sharding.summed[slot]]
        return summed.to(like.device, like.dtype).view(like.shape)

    @torch.no_grad()
    def measured(self, vector: Tensor, slots: Sequence[int]) -> Measured:
        """The whole norms [P] of the gradients in ``slots``, and the total norm over all ranks.

        NaN where a rank failed: nobody waits to see whether one did, and nobody clips by NaN.
        """
        squares = self._of(vector, "squares") / self._of(vector, "copies").clamp(min=TINY)
        squares = torch.where(self._of(vector, "failed").sum() > 0, math.nan, squares)
        here = torch.tensor(slots, dtype=torch.int64, device=vector.device)
        return Measured(squares[here].sqrt(), squares.sum().sqrt(), sharded=True)

    def read(self, numbers: FloatArray) -> tuple[FloatArray, list[int], Elements | None, Moved | None, tuple[int, ...]]:
        """From the sum, on the host: norms and rows [P] of the parameters that have a gradient on some rank, what is
        known of all parameters, and the ranks that hold NaN or inf.

        Raises:
            RuntimeError: when a rank failed.
        """
        failed = self._ranks(numbers, "failed")
        if failed:
            raise RuntimeError(f"{name_ranks(failed)} could not measure the gradients")
        rows, copies = self._sharding.rows, np.maximum(self._of(numbers, "copies"), TINY)
        found = np.flatnonzero(self._of(numbers, "present"))
        squares = self._of(numbers, "squares") / copies
        self._sharding.compare(squares, self._of(numbers, "fourths") / copies)
        norms = np.sqrt(squares)
        elements = moved = None
        if self._sampled and not self._of(numbers, "unsampled").any():
            sums, max_abs = self._of(numbers, "elements"), self._of(numbers, "max_abs").max(axis=0)
            elements = Elements(rows.tolist(), (), sums / copies[:, None], max_abs)
            for partial, (slot, place) in zip(self._of(numbers, "partial"), self._sharding.summed.items()):
                if partial:
                    elements.take_gradient(slot, torch.from_numpy(self._of(numbers, "summed")[place]))
        if self._moved and not self._of(numbers, "unmoved").any():
            moved = Moved(rows.tolist(), (), self._of(numbers, "moved") / copies[:, None])
        return norms[found], rows[found].tolist(), elements, moved, self._ranks(numbers, "nonfinite")

    def _of(self, vector: Any, part: str) -> Any:
        """A view of one part of a vector, as NumPy or torch have it."""
        begin, shape = self._parts[part]
        return vector[begin : begin + math.prod(shape)].reshape(shape)

    def _ranks(self, numbers: FloatArray, part: str) -> tuple[int, ...]:
        return self._sharding.global_ranks(np.flatnonzero(self._of(numbers, part)).tolist())
