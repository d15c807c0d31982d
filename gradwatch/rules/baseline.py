"""Baseline: what is normal for each layer, by medians that no spike or NaN can move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradwatch.history import History
from gradwatch.records import BoolArray, FloatArray
from gradwatch.rules.state import LayerState

REFRESH_STEPS = 8
"""Steps between two medians, twice as many once the window is full: sorting one of 300 layers costs 0.4 ms, a normal
step should cost a tenth of it."""

NOISE = 3.0
"""How far the norm of a healthy run strays from its level: a return to the highest level comes with its noise."""


class Baseline(LayerState):
    """Median and spread of each layer's norm over the steps before the latest, refreshed now and then.

    Its arrays, NaN before there is a baseline: ``level``, the median norm; ``spread``, the robust standard deviation of
    the log norm; ``peak``, the highest norm that was normal so far (a jump that stays below it returns to
    where training came from).

    Args:
        window: number of steps looked at.
        minimum: number of finite, non-zero steps a layer needs before it has a baseline.
    """

    def __init__(self, window: int, minimum: int) -> None:
        super().__init__(level=np.nan, spread=np.nan, peak=np.nan)
        self.window, self.minimum = window, minimum
        self.ceiling: FloatArray | None = None
        """float64 [L], norms up to which a rule has nothing to find until the next refresh; set by the rule."""

    def is_under_ceiling(self, history: History) -> bool:
        """Whether all norms of the latest step are; False where there is no ceiling or it must be found anew."""
        if self.ceiling is None or self._is_due(history):
            return False
        return not np.logical_or.reduce(history.now.grad_norm > self.ceiling)  # half the time of any()

    def align(self, layers: tuple[str, ...]) -> None:
        if layers != self.layers:
            self.ceiling = None
        super().align(layers)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.ceiling = None

    def update(self, history: History, frozen: BoolArray | None = None) -> None:
        """Refresh from ``history``, but for ``frozen`` layers [L]: an ongoing fault must not become the normal."""
        self.align(history.layers)
        if not self._is_due(history):
            return
        usual = history.usual(self.window)
        fresh = usual.steps >= self.minimum
        if frozen is not None:
            fresh &= ~frozen
        self["level"] = np.where(fresh, np.exp(usual.level), self["level"])
        self["spread"] = np.where(fresh, usual.spread, self["spread"])
        self["peak"] = np.fmax(self["peak"], NOISE * self["level"])

    def _is_due(self, history: History) -> bool:
        every = REFRESH_STEPS if history.count <= self.window else 2 * REFRESH_STEPS
        return history.count % every == 0 or history.count == self.minimum + 1
