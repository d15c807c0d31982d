"""Coming: steps that have arrived and are not taken in yet, of which nothing but the norms is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradwatch.records import BoolArray, FloatArray, StepStats


@dataclass(frozen=True)
class Coming:
    """N steps of the same L layers, which a history will take in next. None is skipped by a gradient scaler.

    Args:
        count: steps that the history has taken in before the first of them.
        layers: names of the layers.
        grad_norm: float64 [N, L], 0 where there is no gradient.
        has_grad: bool [L], at every one of them.
        total_norm: float64 [N].

    Example:
        >>> stats = [StepStats(i, ("a", "b"), np.array([1.0, i]), np.ones(2, bool), 1.0) for i in range(3)]
        >>> coming = Coming.of(stats, count=10)
        >>> coming.least.tolist(), coming.after(12).least.tolist()
        ([0.0, 1.0, 1.0], [1.0])
    """

    count: int
    layers: tuple[str, ...]
    grad_norm: FloatArray
    has_grad: BoolArray
    total_norm: FloatArray

    @classmethod
    def of(cls, stats: Sequence[StepStats], count: int) -> Coming:
        """The steps of ``stats``, which is not empty; the first of them is number ``count``, from 0."""
        norms, totals = np.array([s.grad_norm for s in stats]), np.array([s.total_norm for s in stats])
        return cls(count, stats[0].layers, norms, stats[0].has_grad, totals)

    def __len__(self) -> int:
        return len(self.grad_norm)

    def after(self, count: int) -> Coming:
        """Those that are left once the history has taken in ``count`` steps."""
        taken = count - self.count
        return Coming(count, self.layers, self.grad_norm[taken:], self.has_grad, self.total_norm[taken:])

    @cached_property
    def least(self) -> FloatArray:
        """float64 [N], the least norm of the layers that have a gradient, NaN where one is; inf where none has."""
        found: FloatArray = np.minimum.reduce(self._present, axis=1, initial=np.inf)
        return found

    @cached_property
    def largest(self) -> FloatArray:
        """float64 [N], the largest of them, NaN where one is; 0 where no layer has a gradient."""
        found: FloatArray = np.maximum.reduce(self._present, axis=1, initial=0.0)
        return found

    @cached_property
    def _present(self) -> FloatArray:
        return self.grad_norm if np.logical_and.reduce(self.has_grad) else self.grad_norm[:, self.has_grad]


def leading(calm: BoolArray) -> int:
    """How many are True before the first that is not.

    >>> leading(np.array([True, True, False, True])), leading(np.array([True])), leading(np.array([], bool))
    (2, 1, 0)
    """
    return len(calm) if np.logical_and.reduce(calm) else int(np.argmin(calm))
