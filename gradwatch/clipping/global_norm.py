"""Clip by the norm of all gradients together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradwatch.patterns import check_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


@dataclass(frozen=True)
class GlobalNorm:
    r"""Scale all gradients by one factor, so that their total L2 norm is at most ``max_norm``.

    ``g <- g * min(1, max_norm / (|g| + 1e-6))``: as ``torch.nn.utils.clip_grad_norm_``, from norms that were already
    measured. When the total is NaN or inf nothing is changed: one factor cannot mend it, and would spread it.

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
        coefficient = torch.clamp(self.max_norm / (total + 1e-6), max=1.0)
        coefficient = torch.where(torch.isfinite(total), coefficient, torch.ones_like(coefficient))
        # On the CPU the factor is known for free, and 1 need not be multiplied; elsewhere looking would wait.
        if coefficient.device.type != "cpu" or float(coefficient) < 1.0:
            scale_(gradients, coefficient)
        return ClipRecord("global_norm", total, total * coefficient, coefficient, self.max_norm)  # type: ignore[arg-type]


def scale_(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply each of ``gradients`` in place by ``factor`` (0-dim), by device and dtype as torch does."""
    groups: dict[tuple[torch.device, torch.dtype, bool], list[Tensor]] = {}
    for g in gradients:
        groups.setdefault((g.device, g.dtype, g.layout is torch.strided), []).append(g)
    for (device, _, dense), group in groups.items():
        here = factor.to(device)
        if dense:
            torch._foreach_mul_(group, here)
        else:
            for g in group:
                g.mul_(here)
