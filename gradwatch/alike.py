"""AlikeUnits: layers that are as wide as one unit, since all their units began alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradwatch.layers import Gradients
from gradwatch.stats import real_values

SAME_WEIGHTS, SAME_GRADIENTS = 0.01, 0.05
"""Largest difference of a unit's weights and gradients from the first one's, relative to their largest: biases drawn at
random leave a small one, which no optimizer makes larger by itself."""

STILL_ONE = 0.1
"""Largest difference of the weights of a layer that began as one number, relative to their largest, up to which they
are one still."""

MATRICES = 1, 3, 4
"""That may be one below the other: those of attention or a GRU, and of an LSTM."""

COLUMNS = 64
"""Elements of a unit that are compared, evenly."""


class AlikeUnits:
    """Which layers have units with the same weights that are given the same gradient, so that they stay alike.

    Of recurrent layers and attention, which hold several matrices in one, the units of each are meant. A layer with
    units that differ at one look is not asked again. So weights of zero that training leaves, as those of a branch that
    is to begin as none, cost one look more.

    So are most layers' weights where they began as one number: biases drawn at random keep the units apart, though not
    enough to learn from.

    Example:
        >>> weight = torch.ones(3, 4, requires_grad=True)
        >>> (weight @ torch.arange(4.0)).square().sum().backward()
        >>> AlikeUnits().look(Gradients([weight], [weight.grad], [0]))
        [0]
    """

    def __init__(self) -> None:
        self._differ: set[int] = set()
        """The ids of parameters that have units which differ."""
        self._of_one_number: set[int] | None = None
        """Those whose elements were all one number at the first look."""

    @torch.no_grad()
    def look(self, gradients: Gradients) -> list[int]:
        """The rows of the layers concerned, from the device; those whose gradient is zero or not finite are not."""
        if self._of_one_number is None:
            self._of_one_number = _of_one_number(gradients.parameters)
        rows = []
        for p, gradient, row in zip(gradients.parameters, gradients.values, gradients.rows):
            if id(p) in self._differ or p.ndim < 2 or len(p) < 2 or gradient.layout is not torch.strided:
                continue
            weights, asked = _units(p), _units(gradient)
            size = float(asked.abs().max())
            is_one = id(p) in self._of_one_number and _alike(weights.reshape(-1, 1), STILL_ONE, 1)
            if is_one or any(_alike(weights, SAME_WEIGHTS, n) and _alike(asked, SAME_GRADIENTS, n) for n in MATRICES):
                if 0 < size < math.inf:
                    rows.append(row)
            elif math.isfinite(size):
                self._differ.add(id(p))
        return rows


def _of_one_number(parameters: Sequence[Tensor]) -> set[int]:
    """The ids of the matrices and kernels that have a single value, which is not zero, before the last of them; none
    unless they are two at least, and half of all."""
    matrices = [p for p in parameters if p.ndim >= 2 and len(p) > 1 and p.layout is torch.strided]
    values = [(p, _units(p).reshape(-1)) for p in matrices[:-1]]
    found = {id(p) for p, v in values if len(v) > 1 and bool(v[0] != 0) and bool((v == v[0]).all())}
    return found if len(found) > 1 and 2 * len(found) >= len(matrices) else set()


def _units(values: Tensor) -> Tensor:
    """[units, columns], a few elements of each."""
    each = real_values(values.detach())
    each = each.reshape(len(each), -1)
    return each[:, :: -(-each.shape[1] // COLUMNS) | 1]


def _alike(values: Tensor, tolerance: float, matrices: int) -> bool:
    """Whether the units of each of so many matrices are the same but for ``tolerance``; the first three tell at once
    of nearly all that they are not."""
    if len(values) % matrices or len(values) < 2 * matrices:
        return False
    each = values.view(matrices, -1, values.shape[1])
    return all(bool((few - few[:, :1]).abs().max() <= tolerance * few.abs().max()) for few in (each[:, :3], each))
