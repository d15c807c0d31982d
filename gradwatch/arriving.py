"""Arriving: one step's measurement on its way to the host, and what it is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradwatch.clip_call import in_floats
from gradwatch.host_copy import HostCopy
from gradwatch.looks import Looked
from gradwatch.records import ClipRecord, FloatArray, StepStats
from gradwatch.reduction import Reduction
from gradwatch.sampled import Elements, Moved
from gradwatch.stats import per_layer


class Sizes(NamedTuple):
    """How large L layers are."""

    numel: FloatArray
    outputs: FloatArray


class Arriving(NamedTuple):
    """One step's measurement on its way to the host."""

    step: int
    captured: str
    layers: tuple[str, ...]
    sizes: Sizes
    copy: HostCopy
    total_norm: float
    """NaN where that is not known without waiting."""
    rows: list[int]
    clip: ClipRecord | None
    clip_numbers: int
    """Of ``clip``, how many are at the end of ``copy``: those that were tensors."""
    scaled: bool
    elements: Elements | None
    moved: Moved | None
    looked: Looked | None
    """What a close look showed; None of a step that had none."""
    reduction: Reduction | None

    @property
    def looked_at(self) -> bool:
        """Whether the step was looked at closely."""
        return self.looked is not None

    @property
    def is_plain(self) -> bool:
        """Whether nothing but norms is on its way, and the step is surely taken."""
        more = (self.looked, self.elements, self.moved, self.reduction)
        return not self.scaled and more == (None, None, None, None)

    def is_like(self, other: Arriving) -> bool:
        """Whether of both there is nothing but the norms of the same gradients."""
        same = self.layers is other.layers and self.rows == other.rows
        return same and self.is_plain and other.is_plain

    def read(self) -> tuple[StepStats, ClipRecord | None]:
        """The numbers, once they have arrived.

        Raises:
            RuntimeError: when a rank could not measure its part.
        """
        numbers, clip = self.copy.numpy(), self.clip
        if clip is not None and self.clip_numbers:
            numbers, of_clip = np.split(numbers, [-self.clip_numbers])
            clip = in_floats(clip, iter(of_clip.tolist()))
        norms, rows, elements, moved = numbers, self.rows, self.elements, self.moved
        ndims = [] if self.looked is None else self.looked.ndims
        ranks: tuple[int, ...] = ()
        if self.reduction is not None:
            norms, rows, ndims, elements, moved, ranks = self.reduction.read(numbers)
        layers = len(self.layers)
        norm, has_grad = per_layer(norms, rows, layers)
        stats = StepStats(
            self.step,
            self.layers,
            norm,
            has_grad,
            math.sqrt(norm.dot(norm)),
            captured=self.captured,
            skipped=self.scaled and not np.isfinite(norms).all(),
            nonfinite_ranks=ranks,
            update_ratio=moved and moved.update_ratio(layers),
            numel=self.sizes.numel,
            total_update=moved and moved.total_update(self.sizes.outputs),
            broken=moved and moved.has_broken(),
            **({} if self.looked is None else self._looked_stats(self.looked, norms, rows, ndims)),
            **({} if elements is None else elements.stats(layers)),
        )
        return stats, clip

    def _looked_stats(
        self, looked: Looked, norms: FloatArray, rows: Sequence[int], ndims: Sequence[int]
    ) -> dict[str, Any]:
        """The fields of StepStats that a close look knows."""
        every = np.arange(len(self.layers))
        idle, alike, closeup = looked.idle, looked.alike, looked.closeup
        return {
            "input_size": input_size(norms, rows, ndims, len(every)),
            "half": looked.half,
            "trained": looked.trained,
            "not_zeroed": looked.not_zeroed,
            "alike": None if alike is None else np.isin(every, alike),
            "idle": None if idle is None else np.isin(every, idle.rows),
            "unregistered": None if idle is None else idle.strangers,
            **({} if closeup is None else closeup._asdict()),
        }


def input_size(norms: FloatArray, rows: Sequence[int], ndims: Sequence[int], layers: int) -> FloatArray:
    """float64 [L], norm of the gradients of a layer's matrices / that of its vectors; NaN where one is not there."""
    dims, row = np.array(ndims, np.int64), np.array(rows, np.int64)
    of_matrix, of_vector = (per_layer(norms[kind], row[kind], layers)[0] for kind in (dims >= 2, dims == 1))
    with np.errstate(all="ignore"):
        ratio = of_matrix / of_vector
    return np.where((of_matrix > 0) & (of_vector > 0), ratio, np.nan)
