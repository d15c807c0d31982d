"""The outputs of sigmoids and tanhs that have nearly no derivative, by the layer that feeds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

NODES = 32
"""Of the autograd graph, how many are looked at to find the layer that feeds an activation."""


class Saturated(NamedTuple):
    """What one step showed of a layer."""

    saturated: float
    """Of the bounded activations that it feeds, the share of outputs with nearly no derivative."""


class SaturatedOutputs:
    """Counts, in one step, of each layer the outputs beyond the linear range of the activations that it feeds.

    Args:
        rows: of each parameter of the model by its id, below 0 of one that is not watched.

    Example:
        >>> fc, tanh = nn.Linear(1, 1), nn.Tanh()
        >>> seen = SaturatedOutputs({id(p): 0 for p in fc.parameters()})
        >>> output = tanh(10.0 * fc(torch.ones(2, 1)) / fc(torch.ones(1)).abs())
        >>> seen.listen((-0.97, 0.97), tanh, (), output)
        >>> seen.take()
        {0: Saturated(saturated=1.0)}
    """

    def __init__(self, rows: Mapping[int, int]) -> None:
        self._rows = rows
        self._counts: dict[int, tuple[Tensor | int, int]] = {}
        """Of each row those beyond, and all."""

    def listen(self, limits: tuple[float, float], module: nn.Module, args: Any, output: Tensor) -> None:
        """As a forward hook of an activation, whose linear range lies between ``limits``."""
        row = feeding_row(output, self._rows)
        if row is not None:
            with torch.no_grad():
                found = torch.count_nonzero((output <= limits[0]) | (output >= limits[1]))
                before, outputs = self._counts.get(row, (0, 0))
                self._counts[row] = before + found, outputs + output.numel()

    def take(self) -> dict[int, Saturated]:
        """What was seen of each row, from the device."""
        return {row: Saturated(int(beyond) / outputs) for row, (beyond, outputs) in self._counts.items() if outputs}


def feeding_row(output: Tensor, rows: Mapping[int, int]) -> int | None:
    """The row of the layer from whose parameters ``output`` was computed, as the autograd graph tells; None of none.

    Args:
        output: of an activation.
        rows: of each parameter of the model by its id, below 0 of one that is not watched.
    """
    queue: list[Any] = [output.grad_fn]
    for node in queue:  # it grows
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in rows:
            row = rows[id(variable)]
            return row if row >= 0 else None
        # A node written in Python may stand for many layers: a checkpoint, a compiled region.
        if node is not None and not isinstance(node, BackwardCFunction):
            # Weights come after what they are multiplied with, so they are found before an earlier layer's bias.
            queue += [before for before, _ in reversed(node.next_functions) if before is not None]
            del queue[NODES:]
    return None
