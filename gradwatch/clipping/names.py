"""Which parameters the patterns of a policy mean."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gradwatch.patterns import check_patterns, matches
from gradwatch.stats import Measured


def layer_of(parameter: str) -> str:
    """The name of the module that the parameter of that name belongs to, "" for the model itself.

    >>> layer_of("encoder.0.weight"), layer_of("fc.parametrizations.weight.original0")
    ('encoder.0', 'fc')
    """
    module = f".{parameter}".rpartition(".")[0]
    return module.partition(".parametrizations")[0].removeprefix(".")


class Patterns:
    """Patterns of the names of parameters or of their layers.

    Args:
        argument: what to call them in an error.
        patterns: as ``"encoder.*"``.

    Example:
        >>> Patterns("exclude", ("head", "*.bias")).split(["body.0.weight", "body.0.bias", "head.weight"])
        ((2,), (1,), (0,))
    """

    def __init__(self, argument: str, patterns: Sequence[str]) -> None:
        self.argument, self.patterns = argument, tuple(patterns)
        self.checked = not patterns
        self._names: tuple[str, ...] = ()
        self._split: tuple[tuple[int, ...], ...] = ((),) * (len(self.patterns) + 1)

    def check(self, names: Sequence[str]) -> None:
        """Raise ValueError where a pattern matches none of ``names``."""
        check_patterns(self.argument, self.patterns, [*dict.fromkeys(filter(None, map(layer_of, names))), *names])
        self.checked = True

    def split(self, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The indices of ``names`` that each pattern is the first to match, and of those that none matches."""
        if tuple(names) != self._names:
            first = [self._first(name) for name in names]
            self._split = tuple(
                tuple(i for i, found in enumerate(first) if found == n) for n in range(len(self.patterns) + 1)
            )
            self._names = tuple(names)
        return self._split

    def _first(self, name: str) -> int:
        layer = layer_of(name)
        hits = (n for n, pattern in enumerate(self.patterns) if matches(name, [pattern]) or matches(layer, [pattern]))
        return next(hits, len(self.patterns))


def names_of(stats: Measured, wanted_by: str) -> Sequence[str]:
    """The names of the parameters; raises ValueError where nobody gave them."""
    if len(stats.names) != len(stats.norms):
        raise ValueError(f"{wanted_by} goes by the names of parameters, and Measured.names has none")
    return stats.names


@lru_cache(maxsize=64)
def index(numbers: tuple[Any, ...], device: torch.device) -> Tensor:
    """``numbers`` on ``device``, the same tensor at each step: sending them anew would wait for an accelerator."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)
