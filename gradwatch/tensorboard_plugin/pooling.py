"""Pooling: many steps in few columns, so that a spike of one step is still seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradwatch import tags
from gradwatch.records import IntArray
from gradwatch.tensorboard_plugin.series import Float32Array
from gradwatch.tensorboard_plugin.tables import Norms

NAN, INF, ZERO, NO_GRADIENT = 1, 2, 4, 8
"""Marks of a cell: some norm in it was such."""


@dataclass(frozen=True, eq=False)
class Pooled:
    """Norms in cells of some steps and some layers.

    Args:
        largest: float32 [C, L], the largest finite norm above 0 in each cell, 0 where there is none.
        least: float32 [C, L], the smallest likewise, inf where there is none.
        marks: uint8 [C, L].
    """

    largest: Float32Array
    least: Float32Array
    marks: NDArray[np.uint8]

    def of_layers(self, kept: Sequence[int]) -> Pooled:
        """Only some layers."""
        if len(kept) == self.largest.shape[1]:
            return self
        return Pooled(self.largest[:, kept], self.least[:, kept], self.marks[:, kept])

    def by_layers(self, edges: IntArray) -> Pooled:
        """The same in rows of several layers each, beginning at ``edges``."""
        return Pooled(
            np.maximum.reduceat(self.largest, edges, axis=1),
            np.minimum.reduceat(self.least, edges, axis=1),
            np.bitwise_or.reduceat(self.marks, edges, axis=1),
        )


def edges(size: int, cells: int, begin: int = 0) -> IntArray:
    """int64 [C], where each of at most ``cells`` cells of nearly equal size begins.

    >>> edges(10, 4, begin=100).tolist()
    [100, 102, 105, 107]
    """
    cells = min(size, cells)
    return begin + np.arange(cells, dtype=np.int64) * size // max(cells, 1)


def pool(norms: Norms, columns: IntArray, end: int) -> Pooled:
    """The norms from the row ``columns[0]`` to before the row ``end``, in columns that begin at those rows."""
    shape = len(columns), len(norms.layers)
    found = Pooled(np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32), np.zeros(shape, np.uint8))
    for at, rows in norms.stretches(int(columns[0]), end):
        here = slice(np.searchsorted(columns, at, side="right") - 1, np.searchsorted(columns, at + len(rows)))
        _pool_into(found, here, rows, np.maximum(columns[here] - at, 0))
    return found


def _pool_into(found: Pooled, here: slice, rows: Float32Array, starts: IntArray) -> None:
    """Take ``rows`` into the columns ``here``, the first of which may hold others already."""
    plain = (rows > 0) & (rows < np.inf)
    if plain.all():
        largest = least = rows
    else:
        largest, least = np.where(plain, rows, np.float32(0)), np.where(plain, rows, np.float32(np.inf))
        marked = np.flatnonzero(~plain.all(axis=0))
        bits = _marks(rows[:, marked])
        found.marks[here, marked] |= np.bitwise_or.reduceat(bits, starts, axis=0)
    np.maximum(found.largest[here], np.maximum.reduceat(largest, starts, axis=0), out=found.largest[here])
    np.minimum(found.least[here], np.minimum.reduceat(least, starts, axis=0), out=found.least[here])


def _marks(rows: Float32Array) -> NDArray[np.uint8]:
    marks = np.isnan(rows).astype(np.uint8) * NAN
    for value, mark in ((np.inf, INF), (0.0, ZERO), (tags.NO_GRADIENT, NO_GRADIENT)):
        marks |= (rows == value).astype(np.uint8) * np.uint8(mark)
    return marks
