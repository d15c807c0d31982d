"""Clip by several policies, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.several import Several
from gradwatch.clipping.statistics import where
from gradwatch.protocols import ClipPolicy
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured, measure


class Chain(Several):
    """Clip by several policies, each of which gets what the one before it left, with the norms of that.

    As ``Chain(SkipNonFinite(), GlobalNorm(1.0))``. The norms after one factor follow from it, but for the rounding of
    the gradients; after a policy that has no one factor the gradients are measured again, on the CPU only where it
    changed something. Those behind a policy that skips a step are not asked.

    The record's parts are those of the policies; its share of what was clipped is the largest of theirs.

    Args:
        policies: in their order.

    Raises:
        ValueError: when there are none, or one with a memory is there twice.
        TypeError: when one is not a policy.

    Example:
        >>> from gradwatch.clipping import GlobalNorm, Value
        >>> g = torch.tensor([30.0, 0.4])
        >>> record = Chain(Value(0.3), GlobalNorm(0.1)).clip_([g], measure([g]))
        >>> [round(v, 4) for v in g.tolist()], [round(float(part.norm_before), 4) for part in record.parts]
        ([0.0707, 0.0707], [30.0027, 0.4243])
    """

    def __init__(self, *policies: ClipPolicy) -> None:
        super().__init__("Chain: policies", {str(i): policy for i, policy in enumerate(policies)})

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.policies.values()))})"

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        """Raises RuntimeError for a sharded model where norms would have to be measured again."""
        parts: list[ClipRecord] = []
        for name, policy in self.policies.items():
            if parts:
                stats = _measured_after(parts[-1], gradients, stats, name)
            parts.append(policy.clip_(gradients, stats))
            if _skipped(parts[-1]):
                break
        clipped: Any = 0.0
        for part in parts:
            clipped = where(part.clipped > clipped, part.clipped, clipped)
        return ClipRecord(
            "chain",
            parts[0].norm_before,
            parts[-1].norm_after,
            0.0 if _skipped(parts[-1]) else math.prod(part.coefficient for part in parts),
            math.nan,
            clipped=clipped,
            parts=tuple(parts),
        )


def _measured_after(record: ClipRecord, gradients: Sequence[Tensor], stats: Measured, name: str) -> Measured:
    """What is true of ``gradients`` after ``record``, for the policy of that name."""
    factor: Any = record.coefficient
    if isinstance(factor, Tensor) or not math.isnan(factor):
        return replace(stats, norms=stats.norms * factor, total_norm=stats.total_norm * factor)
    if stats.sharded:
        raise RuntimeError(
            f"Chain: policy {name} comes after {record.policy}, which has no one factor: of a sharded model the "
            "norms are not known then, so put it first"
        )
    again = measure(gradients)
    return replace(stats, norms=again.norms, total_norm=again.total_norm)


def _skipped(record: ClipRecord) -> bool:
    """Whether the step is skipped: those that skip have looked, also on an accelerator."""
    return isinstance(record.coefficient, float) and record.coefficient == 0
