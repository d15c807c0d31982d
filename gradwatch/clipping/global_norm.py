"""Clip by the norm of all gradients together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradwatch.clipping.scale import scale_
from gradwatch.patterns import check_number
from gradwatch.records import ClipRecord
from gradwatch.stats import SHORT, Measured

LARGE = 1 << 16
"""Elements up to which torch's own norm of a gradient is taken again, to agree with torch bit for bit."""

TOLERANCE = 1e-4
"""Relative error up to which torch's total counts as right: 65,536 equal elements, its worst case, are off by 1e-5."""


@dataclass(frozen=True)
class GlobalNorm:
    r"""Scale all gradients by one factor, so that their total L2 norm is at most ``max_norm``.

    ``g <- g * min(1, max_norm / (|g| + 1e-6))``: as ``torch.nn.utils.clip_grad_norm_``, from norms that were already
    measured. On the CPU float32 gradients of up to 65,536 elements each come out bit for bit as torch's; for larger
    ones, where torch's own total is off by up to 1e-2, the total is the true one. When it is NaN or inf nothing is
    changed: one factor cannot mend it, and would spread it.

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
        total = stats.total_norm
        on_cpu = total.device.type == "cpu"
        # On the CPU the norm is known for free, and what need not be multiplied is not; elsewhere looking would wait.
        if on_cpu and not float(total) * (1 + TOLERANCE) > self.max_norm:
            return ClipRecord("global_norm", total, total, 1.0, self.max_norm)  # type: ignore[arg-type]
        if on_cpu:
            total = _as_torch(gradients, stats)
        coefficient = torch.clamp(self.max_norm / (total + 1e-6), max=1.0)
        coefficient = torch.where(torch.isfinite(total), coefficient, torch.ones_like(coefficient))
        if not on_cpu or float(coefficient) < 1.0:
            scale_(gradients, coefficient)
        return ClipRecord("global_norm", total, total * coefficient, coefficient, self.max_norm)  # type: ignore[arg-type]


def _as_torch(gradients: Sequence[Tensor], stats: Measured) -> Tensor:
    """The total that torch computes, bit for bit, where that is right to TOLERANCE; else the true total.

    Only float32 gradients of up to LARGE elements are read again for it: above, torch's norm is not worth the time.
    """
    total = stats.total_norm
    if any(g.dtype is torch.float64 for g in gradients):
        return total
    if not all(g.numel() <= LARGE and g.layout is torch.strided and g.dtype is torch.float32 for g in gradients):
        return total.float()
    as_torch = total if all(g.numel() <= SHORT for g in gradients) else nn.utils.get_total_norm(gradients)
    right = abs(float(as_torch) - float(total)) <= TOLERANCE * float(total)
    return as_torch if right else total.float()
