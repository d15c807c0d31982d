"""The one all_reduce of a captured step, from which every rank of a sharded model knows the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gradwatch.layers import Gradients
from gradwatch.records import FloatArray
from gradwatch.sampled import Elements, Moved
from gradwatch.sharding import Sharding, is_partial, put_back_
from gradwatch.stats import Measured
from gradwatch.verdict import name_ranks

TINY = np.finfo(np.float64).tiny


class Parts:
    """What one rank holds of P gradients of a step, to be added to what the others hold."""

    def __init__(self) -> None:
        self.slots: list[int] = []
        self.weights: list[float] = []
        self.summands: dict[int, Tensor] = {}
        """Of the Partial ones among them that are still to be summed, what this rank has times what that counts."""
        self._partial: dict[int, Tensor] = {}

    def add(self, found: Gradients, whole: Sequence[Tensor], factor: Tensor | None) -> None:
        """Add ``found``, this rank's parts of the gradients ``whole``, which were multiplied by ``factor``."""
        for i, (gradient, values, share) in enumerate(zip(whole, found.values, found.shares), len(self.slots)):
            if is_partial(gradient):
                self._partial[i] = gradient
            if share:
                self.summands[i] = values.double() * (share if factor is None else share / factor.to(values.device))
        self.slots += found.slots
        self.weights += found.weights

    def sum_(self, values: list[Tensor], reduction: Reduction, vector: Tensor, factor: Tensor | None) -> None:
        """Put the sums, as ``vector`` has them, in the place of the summands among ``values``."""
        for i in self.summands:
            whole = reduction.whole(vector, self.slots[i], like=values[i])
            values[i] = whole if factor is None else whole * factor.to(whole)

    def put_back(self, values: Sequence[Tensor]) -> None:
        """Make the Partial gradients those whose sums are among ``values``."""
        for i, gradient in self._partial.items():
            put_back_(gradient, values[i])


class Reduction:
    """The vector that one step sends around; its length depends on nothing that one rank alone knows.

    Of each of the S parameters it has the square of the norm, whether there is a gradient, the number of copies, and
    the square of the square, by which it shows that copies differ; of each rank whether it failed and how many of its
    gradients are not finite.

    Args:
        sharding: of the model.
        columns: sums of each parameter that a sampled step adds, 0 between sampled steps.
        moved: whether to send how far the last step moved the parameters.
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

    def add_norms(self, parts: Parts, norms: Tensor) -> None:
        """Add the norms [P] of this rank's parts of some gradients."""
        if parts.slots:
            self._of(self._vector, "present")[parts.slots] = np.array(parts.weights) > 0
            device = self._sharding.device
            weight = torch.tensor(parts.weights, dtype=torch.float64, device=device)
            self._norms = torch.tensor(parts.slots, device=device), weight, norms.to(device, torch.float64)
        of_summed = list(self._sharding.summed)
        for i, summand in parts.summands.items():
            self._of(self._vector, "partial")[of_summed.index(parts.slots[i])] = 1
            self._summands.append((parts.slots[i], summand))

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

    def read(
        self, numbers: FloatArray
    ) -> tuple[FloatArray, list[int], list[int], Elements | None, Moved | None, tuple[int, ...]]:
        """From the sum, on the host: norms, rows and numbers of dimensions [P] of the parameters that have a gradient
        on some rank, what is known of all parameters, and the ranks that hold NaN or inf.

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
        ndims = self._sharding.ndims[found].tolist()
        return norms[found], rows[found].tolist(), ndims, elements, moved, self._ranks(numbers, "nonfinite")

    def _of(self, vector: Any, part: str) -> Any:
        """A view of one part of a vector, as NumPy or torch have it."""
        begin, shape = self._parts[part]
        return vector[begin : begin + math.prod(shape)].reshape(shape)

    def _ranks(self, numbers: FloatArray, part: str) -> tuple[int, ...]:
        return self._sharding.global_ranks(np.flatnonzero(self._of(numbers, part)).tolist())
