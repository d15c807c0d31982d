"""Clip each element of the gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.limit import untouched
from gradwatch.patterns import check_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured, measure, real_values

_CLAMPED = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass(frozen=True)
class Value:
    """Clamp every element of every gradient into ``[-max_value, max_value]``, as ``torch.nn.utils.clip_grad_value_``.

    Inf becomes ``max_value``; NaN stays NaN. The direction of the gradient changes, so there is no one coefficient; the
    share of the elements that were beyond and the norm after need a reading of the gradients each. On the CPU all that
    is done only where something may be beyond.

    Args:
        max_value: the largest magnitude allowed, above 0.

    Raises:
        ValueError: when ``max_value`` is not above 0.
        TypeError: when ``max_value`` is not a number.

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
        total: Any = stats.total_norm
        # No element is larger than the total norm; on the CPU that is known for free.
        if total.device.type == "cpu" and float(total) <= self.max_value:
            return untouched(stats, self.max_value, "value")
        clipped: Any = math.nan if stats.sharded else self._share_beyond(gradients, total)
        groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for g in gradients:
            if g.layout is torch.strided and g.dtype in _CLAMPED:
                groups.setdefault((g.device, g.dtype), []).append(g)
            else:
                self._clamp_parts_(g)
        for (_, dtype), group in groups.items():
            limit = self._limit(dtype)
            torch._foreach_clamp_min_(group, -limit)
            torch._foreach_clamp_max_(group, limit)
        # Of a sharded model there are only this rank's parts here.
        after: Any = math.nan if stats.sharded else measure(gradients).total_norm
        return ClipRecord("value", total, after, math.nan, self.max_value, clipped=clipped)

    def _share_beyond(self, gradients: Sequence[Tensor], total: Tensor) -> Tensor:
        """Of all elements, zeros that are not stored among them, those that are to be clamped."""
        beyond = torch.zeros_like(total)
        for g in gradients:
            parts = real_values(g)
            beyond += (parts.abs() > self._limit(parts.dtype)).sum().to(beyond)
        return beyond / max(1, sum(g.numel() * (1 + g.is_complex()) for g in gradients))

    def _clamp_parts_(self, g: Tensor) -> None:
        """For what torch cannot clamp: both parts of a complex gradient, what a sparse one stores, float8."""
        parts = real_values(g)
        limit = self._limit(parts.dtype)
        clamped = parts.clamp(-limit, limit)
        if g.is_complex():
            clamped = torch.view_as_complex(clamped)
        if g.layout is not torch.strided:
            clamped = torch.sparse_coo_tensor(g.coalesce().indices(), clamped, g.shape, check_invariants=False)
        g.copy_(clamped)

    def _limit(self, dtype: torch.dtype) -> float:
        """``max_value``, or the largest finite number of ``dtype`` where that is less: torch takes no limit above."""
        largest = torch.finfo(dtype).max
        return self.max_value if self.max_value == math.inf else min(self.max_value, largest)
