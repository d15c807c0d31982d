"""IdleParameters: parameters that get a gradient which nobody uses."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from gradwatch.sampled import thinned
from gradwatch.stats import real_values


class IdleParameters:
    """Which layers have a parameter with a gradient that no optimizer known has, and that nobody has written to.

    Another optimizer, of which nothing is known, writes to its parameters. Every such operation counts them up, and
    where it goes through ``.data`` a sum over some of their elements is another.

    Example:
        >>> import torch
        >>> p = torch.ones(1, requires_grad=True)
        >>> p.sum().backward()
        >>> idle = IdleParameters()
        >>> [idle.look([(p, 0)], trained=()) for _ in range(2)]
        [[], [0]]
        >>> with torch.no_grad():
        ...     p -= 0.1 * p.grad
        >>> idle.look([(p, 0)], trained=())
        []
    """

    def __init__(self) -> None:
        self._states: dict[int, tuple[int, float]] = {}
        """By the id of the parameter its version and sum, as of the last look."""

    def look(self, parameters: Iterable[tuple[Tensor, int]], trained: Collection[int]) -> list[int]:
        """The rows concerned, once each has been looked at twice.

        Args:
            parameters: with their rows; below 0 of those that are not watched.
            trained: ids of those that an optimizer has.
        """
        waiting = {
            id(p): ((p._version, _sum(p)), row)
            for p, row in parameters
            if row >= 0 and p.requires_grad and p.grad is not None and id(p) not in trained
        }
        before, self._states = self._states, {key: state for key, (state, _) in waiting.items()}
        return [row for key, (state, row) in waiting.items() if before.get(key) == state]


def _sum(p: Tensor) -> float:
    """Of what :func:`~gradwatch.sampled.thinned` leaves; none of NaN, which differs from itself."""
    return float(torch.nan_to_num(real_values(thinned(p.detach()))).double().sum())
