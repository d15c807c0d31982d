"""Clip by the norm of all gradients together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.clipping.scale import scale_
from gradwatch.patterns import check_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured

LARGE = 1 << 20
"""Elements up to which torch's own total on the CPU is asked for: there it is right to about 1e-5, for normally
distributed gradients. Above it is not worth a second reading."""

TOLERANCE = 1e-4
"""Relative error up to which torch's total counts as right, whatever the distribution."""

EPSILON = 1e-6
"""In torch's formula, so that nothing is divided by zero."""

_ROUNDED = {torch.float16, torch.bfloat16}
"""Of these alone torch's total and factor have 3 digits, so they are not asked for."""

_SUMMED = {*_ROUNDED, torch.float32, torch.float64, torch.complex64, torch.complex128}

_torchs_total: Callable[[Sequence[Tensor]], Tensor] | None = getattr(nn.utils, "get_total_norm", None)
"""None before torch 2.6."""


@dataclass(frozen=True)
class GlobalNorm:
    r"""Scale all gradients by one factor, so that their total L2 norm is at most ``max_norm``.

    ``g <- g * min(1, max_norm / (|g| + 1e-6))``, as ``torch.nn.utils.clip_grad_norm_``, and bit for bit what that gives
    wherever torch's own total is right: to 1e-4, with no gradient of more than a million elements on the CPU. Where it
    is not, the norms that were measured give the true total: torch's float32 sums on the CPU lose digits in large
    gradients (1e-5 at a million elements, 1e-2 at 100 million), its squares overflow, totals and factors of float16
    and bfloat16 gradients are rounded to 3 digits, it cannot take sparse gradients, and of a sharded model it adds
    in another order. When the total is NaN or inf nothing is changed: one factor cannot mend it, and would spread it.

    On the CPU a step with nothing to clip costs nothing, and one that clips costs a second reading of such gradients,
    for torch's total. Elsewhere both totals are always taken and nothing is looked at, so nothing waits.

    Args:
        max_norm: the largest total norm allowed, above 0.

    Raises:
        ValueError: when ``max_norm`` is not above 0.
        TypeError: when ``max_norm`` is no number.

    Example:
        >>> from gradwatch.stats import measure
        >>> g = torch.tensor([3.0, 4.0])
        >>> record = GlobalNorm(max_norm=1.0).clip_([g], measure([g]))
        >>> [round(v, 4) for v in g.tolist()], round(float(record.norm_before), 4)
        ([0.6, 0.8], 5.0)

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    algorithm 1.
    """

    max_norm: float

    def __post_init__(self) -> None:
        check_number("GlobalNorm: max_norm", self.max_norm, above=0)

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        total: Any = stats.total_norm
        on_cpu = total.device.type == "cpu"
        # On the CPU the norm is known for free, and what need not be read is not; elsewhere looking would wait.
        if on_cpu and not self.max_norm < float(total) * (1 + TOLERANCE) + EPSILON < inf:
            return ClipRecord("global_norm", total, total, 1.0, self.max_norm)
        coefficient: Any = self._coefficient(total)
        if _torchs_total is not None and not stats.sharded and _summed(gradients):
            theirs = _torchs_total(gradients).to(total.device)
            right = (theirs - total).abs() <= TOLERANCE * total
            coefficient = torch.where(right, self._coefficient(theirs), coefficient).to(theirs.dtype)
        coefficient = torch.where(torch.isfinite(total), coefficient, 1.0)
        if not on_cpu or float(coefficient) < 1.0:
            scale_(gradients, coefficient)
        return ClipRecord("global_norm", total, total * coefficient, coefficient, self.max_norm)

    def _coefficient(self, total: Tensor) -> Tensor:
        """By torch's operations, to the last bit."""
        return torch.clamp(self.max_norm / (total + EPSILON), max=1.0)


def _summed(gradients: Sequence[Tensor]) -> bool:
    """Whether torch has a total norm for them that can be right."""
    can = all(g.layout is torch.strided and g.dtype in _SUMMED for g in gradients)
    large = any(g.numel() > LARGE and g.device.type == "cpu" for g in gradients)
    return can and not large and not all(g.dtype in _ROUNDED for g in gradients)
