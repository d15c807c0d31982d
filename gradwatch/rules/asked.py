"""Asked: how much a loss still asks of a model's outputs, while at each look something is seen that keeps it."""

from __future__ import annotations

import numpy as np

from gradwatch.history import History
from gradwatch.records import StepStats, or_nan
from gradwatch.rules.state import ModelState

FIRST = 5
"""Looks at the start that tell what the loss asked for."""


class Asked(ModelState):
    """The gradient at the model's outputs at the looks in a row at which a sign was seen, relative to the first looks.

    Example:
        >>> stats = StepStats(0, ("fc",), np.ones(1), np.ones(1, bool), 1.0, output_gradient=1.0, loss_gradient=2.0)
        >>> asked, history = Asked(), History()
        >>> for _ in range(FIRST + 3):
        ...     history.append(stats)
        ...     asked.look(history, seen=True)
        >>> asked["row"], asked.left
        (3, 1.0)
    """

    def __init__(self) -> None:
        super().__init__(looks=0, first=0.0, row=0, sum=0.0, since=0)

    @staticmethod
    def is_known(stats: StepStats) -> bool:
        """Whether it is in this step: not where a loss scale may have changed, or the error itself is known."""
        asked, passed, error = map(or_nan, (stats.loss_gradient, stats.output_gradient, stats.output_error))
        return bool(not stats.half and np.isfinite([asked, passed]).all() and not np.isfinite(error))

    @property
    def begins(self) -> bool:
        """Whether the next look is one of the first, at which no sign counts."""
        return bool(self["looks"] < FIRST)

    def look(self, history: History, seen: bool) -> None:
        """Take in a look at which it is known, and whether the sign was seen."""
        asked = history.now.loss_gradient
        if self.begins:
            self["first"] = max(self["first"], asked)
            self["looks"] += 1
        elif seen:
            self["row"], self["sum"] = self["row"] + 1, self["sum"] + asked
        else:
            self["row"], self["sum"], self["since"] = 0, 0.0, history.count

    @property
    def left(self) -> float:
        """Its mean over those looks relative to the first; NaN where there is none, or nothing was asked at first."""
        return float(self["sum"] / self["row"] / self["first"]) if self["row"] and self["first"] > 0 else np.nan
