"""Series: what was written under one tag of one run, wherever it was read from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch import tags
from gradwatch.records import BoolArray, FloatArray, IntArray

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Series:
    """The events of one tag, in the order in which they were written.

    Args:
        content: what the sink says of the tag: format version, and of a tensor its statistics and layers.
        steps: int64 [T].
        written: float64 [T], wall time.
        numbers: float32 [T, statistics, L] of a tensor, else None.
        texts: of a text one JSON document each.
    """

    content: dict[str, Any]
    steps: IntArray
    written: FloatArray
    numbers: Float32Array | None = None
    texts: tuple[bytes, ...] = ()

    def only(self, standing: Standing) -> Series:
        """What of it still stands."""
        stands = standing.of(self.steps, self.written)
        if stands.all():
            return self
        numbers = self.numbers[stands] if self.numbers is not None else None
        texts = tuple(text for text, keep in zip(self.texts, stands) if keep)
        return Series(self.content, self.steps[stands], self.written[stands], numbers, texts)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the tensor's columns."""
        return tuple(self.content["layers"])

    @property
    def stats(self) -> list[str]:
        """Names of the tensor's rows."""
        return list(self.content["stats"])

    def row(self, stat: str) -> Float32Array:
        """float32 [T, L], the statistic of that name."""
        assert self.numbers is not None
        return self.numbers[:, self.stats.index(stat)]

    @cached_property
    def total(self) -> FloatArray:
        """float64 [T], the total norm over the layers of a tensor of norms."""
        assert self.numbers is not None
        norms = self.numbers[:, 0]
        there = norms * (norms != tags.NO_GRADIENT)
        total: FloatArray = np.sqrt(np.einsum("ij,ij->i", there, there, dtype=np.float64))
        return total


def described(content: bytes) -> dict[str, Any] | None:
    """What the sink says of a tag, None where that is not what it would say."""
    try:
        found = json.loads(content)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("version") != tags.FORMAT_VERSION:
        return None
    names = [found[key] for key in ("layers", "stats") if key in found]
    if len(names) == 1 or not all(
        isinstance(n, list) and n and all(isinstance(name, str) for name in n) for n in names
    ):
        return None
    return found


class Standing:
    """Which of a run's events still stand: a run that was resumed overrides what was written from there on.

    An event stands unless a step at or before its own was written after it. So of each step one row stands.

    Example:
        >>> norms = np.array([0, 1, 2, 1, 2]), np.array([10.0, 11.0, 12.0, 50.0, 51.0])  # resumed at step 1
        >>> Standing([norms]).of(*norms).tolist()
        [True, False, False, True, True]
    """

    def __init__(self, rows: Iterable[tuple[IntArray, FloatArray]]) -> None:
        steps, written = (np.concatenate(arrays) for arrays in zip(*rows))
        order = np.lexsort((steps, written))
        self._written = written[order]
        later = np.minimum.accumulate(steps[order][::-1])[::-1]
        self._least_from = np.append(later, np.iinfo(np.int64).max)

    def of(self, steps: IntArray, written: FloatArray) -> BoolArray:
        """bool [T]."""
        return np.asarray(steps < self._least_from[np.searchsorted(self._written, written, side="right")])


def histogram_series(rows: Iterable[tuple[int, float, Any, Any]]) -> Series:
    """Histograms in the buckets of ``tags.HISTOGRAM_EDGES``, of which only the filled stretch was written.

    Args:
        rows: of each sampled step: step, wall time, upper limits of the buckets that were written, and their counts.
    """
    edges, found = tags.HISTOGRAM_EDGES, list(rows)
    numbers = np.zeros((len(found), 1, len(edges) - 1), np.float32)
    for row, (_, _, limits, counts) in zip(numbers[:, 0], found):
        places = np.searchsorted(edges, np.asarray(limits, np.float64) - 1e-3) - 1
        np.add.at(row, places.clip(0, len(row) - 1), counts)
    steps, written = np.array([row[0] for row in found], np.int64), np.array([row[1] for row in found], np.float64)
    return Series({}, steps, written, numbers)
