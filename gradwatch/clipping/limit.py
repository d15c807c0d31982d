"""Limiting the total norm, for the policies that do so by a number of their own."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.scale import scale_
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


@torch.no_grad()
def limit_total_(gradients: Sequence[Tensor], stats: Measured, max_norm: float | Tensor, policy: str) -> ClipRecord:
    """Scale all ``gradients`` by one factor, so that their total norm is at most ``max_norm``; inf limits nothing.

    On the CPU a step with nothing to clip costs nothing. Elsewhere nothing is looked at, so nothing waits.

    Args:
        gradients: changed in place.
        stats: what was measured of them.
        max_norm: the limit, above 0; 0-dim where it was calculated on an accelerator.
        policy: its plain name, for the record.

    Example:
        >>> from gradwatch.stats import measure
        >>> g = torch.tensor([3.0, 4.0])
        >>> record = limit_total_([g], measure([g]), 0.5, "my_policy")
        >>> [round(v, 4) for v in g.tolist()], round(float(record.coefficient), 4)
        ([0.3, 0.4], 0.1)
    """
    if stats.total_norm.device.type == "cpu":
        max_norm = float(max_norm)
        if not max_norm < float(stats.total_norm) < inf:
            return untouched(stats, max_norm, policy)
    return multiply_(gradients, stats, factors(stats.total_norm, max_norm), max_norm, policy)


def multiply_(
    gradients: Sequence[Tensor], stats: Measured, coefficient: Tensor, threshold: float | Tensor, policy: str
) -> ClipRecord:
    """Scale all ``gradients`` by ``coefficient`` (0-dim, at most 1), as the record then says."""
    before: Any = stats.total_norm
    after: Any = stats.total_norm * coefficient
    recorded: Any = coefficient
    limit: Any = threshold
    if before.device.type != "cpu" or float(coefficient) < 1:
        scale_(gradients, coefficient)
    return ClipRecord(policy, before, after, recorded, limit, clipped=(recorded < 1).to(before.dtype))


def untouched(stats: Measured, threshold: float, policy: str) -> ClipRecord:
    """The record of a step with nothing to clip, on the CPU where that is known."""
    total: Any = stats.total_norm
    return ClipRecord(policy, total, total, 1.0, threshold, clipped=0.0)


def factors(norms: Tensor, limits: float | Tensor) -> Tensor:
    """``min(1, limit / norm)`` for each; 1 of a norm that is NaN or inf, which no factor can mend.

    >>> factors(torch.tensor([4.0, 1.0, float("inf")]), 2.0).tolist()
    [0.5, 1.0, 1.0]
    """
    return torch.where((norms > limits) & (norms < inf), limits / norms, 1.0)
