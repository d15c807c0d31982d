"""NotZeroed: every step's gradients are added to those of the steps before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule


@dataclass
class NotZeroed(LayerRule):
    """Nothing sets the gradients to zero between two steps, so that each step repeats all steps before it.

    It is seen at the first steps and at the sampled ones: the gradient that a backward pass finds, where it adds its
    own, is not zero, and so in every backward pass of the step. Gradients that are accumulated on purpose begin at zero
    once per step.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0])
        >>> history.append(replace(history.latest, step=1, not_zeroed=True))
        >>> [alert.message for alert in NotZeroed(patience=1).check(history)]
        ['fc: gradients are added to those of the steps before: call optimizer.zero_grad() once per step']

    Source: torch.optim.Optimizer.zero_grad.
    """

    name: ClassVar[str] = "not_zeroed"
    severity: ClassVar[Severity] = Severity.ERROR
    by_looks: ClassVar[bool] = True
    looks_at: ClassVar[tuple[str, ...]] = ("not_zeroed",)

    patience: int = 8
    # Half of the looks that a run begins with.
    recovery: int = 4
    # Zeroed once per epoch, the gradients of a sampled step may be.

    def judge(self, history: History) -> Judgement:
        stats = history.now
        # Where nothing moved there was no step: the monitor is told of every micro-batch.
        known = stats.not_zeroed is not None and stats.total_update != 0
        bad, good = (stats.has_grad & (known and stats.not_zeroed is told) for told in (True, False))
        return Judgement(stats.grad_norm, np.zeros(len(bad)), bad, good, known=bad | good)

    def describe(self, value: float, threshold: float) -> str:
        return "gradients are added to those of the steps before: call optimizer.zero_grad() once per step"
