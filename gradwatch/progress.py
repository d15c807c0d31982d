"""Progress: how much of the training error is left, by the gradient of the loss with respect to the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradwatch.records import StepStats

FIRST = 5
"""Looks at the start of the run whose mean is what there was to learn: batches differ, and the first output is none."""

BEYOND = 1.1
"""What exceeds the first ones by more is no error that stayed what it was."""

STAYS = 0.9
"""Share of the look before that is as much as before; close looks are a hundred steps apart."""


class Progress:
    """What close looks tell of the outputs' error, without labels: as little as a loss that has not fallen.

    A network that has not learned anything may yet: a language model needs a thousand steps, and a network that plays
    against another one never shows it. So it is no finding of its own, and a rule asks for it beside another sign.

    Example:
        >>> import numpy as np
        >>> progress = Progress()
        >>> for step, gradient in enumerate([0.2, 0.2, 0.2, 0.2, 0.2, 0.19, 0.18]):
        ...     norm, there = np.ones(1), np.ones(1, bool)
        ...     progress.look(StepStats(step, ("fc",), norm, there, 1.0, output_gradient=gradient), early=step < 5)
        >>> round(progress.left, 2), progress.is_none(but=0.85), progress.stands_still(but=0.85)
        (0.9, True, True)
    """

    def __init__(self) -> None:
        self._looks = 0
        self._first = 0.0
        self.left = math.nan
        """Of the last look, relative to the first ones; NaN where that is not known."""
        self._before = math.nan

    def look(self, stats: StepStats, early: bool) -> None:
        """Take one step in; nothing where there was no close look, or a gradient scaler's scale may have changed."""
        gradient = stats.output_gradient
        if gradient is None or stats.half or not math.isfinite(gradient):
            return
        if not early:
            self._before, self.left = self.left, gradient / self._first if self._first > 0 else math.nan
        elif self._looks < FIRST:
            self._first = (self._first * self._looks + gradient) / (self._looks + 1)
            self._looks += 1

    def is_none(self, but: float) -> bool:
        """Whether at least the share ``but`` of the first error is left, and not much more than all of it."""
        return but < self.left < BEYOND

    def stands_still(self, but: float) -> bool:
        """Whether that is so, and was at the look before, with hardly a difference between the two."""
        return self.is_none(but) and but < self._before and self.left > STAYS * self._before

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self._looks, "first": self._first, "left": self.left, "before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._looks, self._first = int(state["looks"]), float(state["first"])
        self.left, self._before = float(state["left"]), float(state["before"])
