"""IdleParameters: parameters that get a gradient which nobody uses."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor


class IdleParameters:
    """Which layers have a parameter with a gradient that no optimizer known has, and that nobody has written to.

    Another optimizer, of which nothing is known, writes to its parameters, and every such operation counts them up.

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
        self._versions: dict[int, int] = {}
        """By the id of the parameter, as of the last look."""

    def look(self, parameters: Iterable[tuple[Tensor, int]], trained: Collection[int]) -> list[int]:
        """The rows concerned, once each has been looked at twice.

        Args:
            parameters: with their rows; below 0 of those that are not watched.
            trained: ids of those that an optimizer has.
        """
        waiting = {
            id(p): (p._version, row)
            for p, row in parameters
            if row >= 0 and p.requires_grad and p.grad is not None and id(p) not in trained
        }
        before, self._versions = self._versions, {key: version for key, (version, _) in waiting.items()}
        return [row for key, (version, row) in waiting.items() if before.get(key) == version]
