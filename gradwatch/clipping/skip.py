"""Skipping a step, for the policies that would rather lose it than clip it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradwatch.faults import StopTraining
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


class TooManySkipped(StopTraining):
    """Training has not moved for too many steps, and will not by itself."""


@torch.no_grad()
def skip_(gradients: Sequence[Tensor], stats: Measured, policy: str, threshold: float) -> ClipRecord:
    """Let the optimizer pass over this step: it leaves parameters alone that have no gradient, and their state.

    So momentum and weight decay, which act on a gradient of zero too, do not move them either. Where nobody gave the
    parameters with ``stats`` zero is the nearest to it.

    Args:
        gradients: made zero where the parameters are not known.
        stats: with the parameters, whose gradients are taken away.
        policy: its plain name, for the record.
        threshold: the limit that was exceeded.

    Example:
        >>> from gradwatch.stats import measure
        >>> g = torch.tensor([float("nan"), 4.0])
        >>> record = skip_([g], measure([g]), "skip_non_finite", float("inf"))
        >>> g.tolist(), record.norm_after
        ([0.0, 0.0], 0.0)
    """
    for parameter in stats.parameters:
        parameter.grad = None
    if not stats.parameters:
        for gradient in gradients:
            gradient.zero_()
    before: float = stats.total_norm  # type: ignore[assignment]
    return ClipRecord(policy, before, 0.0, 0.0, threshold, clipped=1.0)


def pass_on(stats: Measured, policy: str, threshold: float) -> ClipRecord:
    """The record of a step that is not skipped."""
    total: float = stats.total_norm  # type: ignore[assignment]
    return ClipRecord(policy, total, total, 1.0, threshold, clipped=0.0)
