"""Clip each element of the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradwatch.patterns import check_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured, measure, real_values


@dataclass(frozen=True)
class Value:
    """Clamp every element of every gradient into ``[-max_value, max_value]``, as ``torch.nn.utils.clip_grad_value_``.

    Inf becomes ``max_value``; NaN stays NaN. The direction of the gradient changes, so there is no one coefficient, and
    the norm after needs a second reading of the gradients, which is taken only where something may have been clipped.

    Args:
        max_value: the largest magnitude allowed, above 0.

    Raises:
        ValueError: when ``max_value`` is not above 0.
        TypeError: when ``max_value`` is no number.

    Example:
        >>> g = torch.tensor([-3.0, 0.5])
        >>> record = Value(max_value=1.0).clip_([g], measure([g]))
        >>> g.tolist(), round(float(record.norm_after), 4)
        ([-1.0, 0.5], 1.118)

    Source: Mikolov, "Statistical language models based on neural networks", PhD thesis, 2012, section 3.2.2.
    """

    max_value: float

    def __post_init__(self) -> None:
        check_number("Value: max_value", self.max_value, above=0)

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        total = stats.total_norm
        # No element is larger than the total norm; on the CPU that is known for free.
        if total.device.type == "cpu" and float(total) <= self.max_value:
            return ClipRecord("value", total, total, 1.0, self.max_value)  # type: ignore[arg-type]
        for g in gradients:
            if g.layout is torch.strided and not g.is_complex():
                g.clamp_(-self.max_value, self.max_value)
                continue
            clamped = real_values(g).clamp(-self.max_value, self.max_value)
            if g.is_complex():
                clamped = torch.view_as_complex(clamped)
            if g.layout is not torch.strided:
                clamped = torch.sparse_coo_tensor(g.coalesce().indices(), clamped, g.shape, check_invariants=False)
            g.copy_(clamped)
        after = measure(gradients).total_norm
        return ClipRecord("value", total, after, float("nan"), self.max_value)  # type: ignore[arg-type]
