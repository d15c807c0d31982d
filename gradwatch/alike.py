"""AlikeUnits: layers that are as wide as one unit, since all their units began alike."""

from __future__ import annotations

import torch
from torch import Tensor

from gradwatch.layers import Gradients
from gradwatch.sampled import thinned
from gradwatch.stats import real_values

SAME_WEIGHTS, SAME_GRADIENTS = 0.01, 0.05
"""Largest difference of a unit's weights and gradients from the first one's, relative to their largest: biases drawn at
random leave a small one, which no optimizer makes larger by itself."""


class AlikeUnits:
    """Which layers have units with the same weights that are given the same gradient, so that they stay alike.

    A layer with units that differ at one look is not asked again. So weights of zero that training leaves, as those of
    a branch that is to begin as none, cost one look more.

    Example:
        >>> weight = torch.ones(3, 4, requires_grad=True)
        >>> (weight @ torch.arange(4.0)).square().sum().backward()
        >>> AlikeUnits().look(Gradients([weight], [weight.grad], [0]))
        [0]
    """

    def __init__(self) -> None:
        self._differ: set[int] = set()
        """The ids of parameters that have units which differ."""

    @torch.no_grad()
    def look(self, gradients: Gradients) -> list[int]:
        """The rows of the layers concerned, from the device; those without any gradient are not."""
        rows = []
        for p, gradient, row in zip(gradients.parameters, gradients.values, gradients.rows):
            if id(p) in self._differ or p.ndim < 2 or len(p) < 2 or gradient.layout is not torch.strided:
                continue
            if not (_alike(p, SAME_WEIGHTS) and _alike(gradient, SAME_GRADIENTS)):
                self._differ.add(id(p))
            elif real_values(gradient).any():
                rows.append(row)
        return rows


def _alike(values: Tensor, tolerance: float) -> bool:
    """Whether the first rows and the last one are the same but for ``tolerance``."""
    few = torch.stack([thinned(real_values(values.detach()[i])) for i in (0, 1, -1)])
    return bool((few - few[0]).abs().max() <= tolerance * few.abs().max())
