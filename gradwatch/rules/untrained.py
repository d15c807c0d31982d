"""Untrained: layers get a gradient that no optimizer uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.records import BoolArray, StepStats
from gradwatch.rules.flagged import Flagged


@dataclass
class Untrained(Flagged):
    """Layers require a gradient and get one, and no optimizer has them: they stay as they began.

    So it is where an optimizer was made before a layer was, or with the parameters of another part. It is seen at the
    first steps and at the sampled ones, and is a WARNING, since it may be meant so, if it then costs a backward pass
    for nothing; it becomes an ERROR once it is seen that nothing has been learned, or little and it stands still. What
    another optimizer writes to, of which nothing is known, is none of it.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> from gradwatch.history import History
        >>> history = History.from_grad_norms(body=[None], head=[1.0])
        >>> history.append(replace(history.latest, step=1, idle=np.array([True, False])))
        >>> [alert.message for alert in Untrained(patience=1).check(history)]
        ['body: no optimizer uses the gradient, so the weights stay as they began']

    Source: torch.optim.Optimizer.add_param_group.
    """

    name: ClassVar[str] = "untrained"
    looks_at: ClassVar[tuple[str, ...]] = ("idle",)

    patience: int = 12
    # Of the 16 looks that a run begins with: another optimizer may step once in five or ten steps.
    recovery: int = 1

    def among(self, stats: StepStats) -> BoolArray:
        """All: what the optimizer does not have has no gradient in any record."""
        return np.ones(len(stats.layers), bool)

    def describe(self, value: float, threshold: float) -> str:
        return "no optimizer uses the gradient, so the weights stay as they began"
