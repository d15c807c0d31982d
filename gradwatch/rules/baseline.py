"""Baseline: what is normal for each layer, by medians that no spike or NaN can move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradwatch.coming import Coming, leading
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

    def calm_steps(self, coming: Coming) -> int:
        """In how many of the ``coming`` steps, from the first on, all norms are under the ceiling, and that stands."""
        if self.ceiling is None:
            return 0
        norms = coming.grad_norm[: self._steps_to_refresh(coming.count)]
        return leading(~np.logical_or.reduce(norms > self.ceiling, axis=1))  # half the time of any()

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
        if not self._is_due(history.count):
            return
        usual = history.usual(self.window)
        fresh = usual.steps >= self.minimum
        if frozen is not None:
            fresh &= ~frozen
        self["level"] = np.where(fresh, np.exp(usual.level), self["level"])
        self["spread"] = np.where(fresh, usual.spread, self["spread"])
        self["peak"] = np.fmax(self["peak"], NOISE * self["level"])

    def _is_due(self, count: int) -> bool:
        return count % self._every(count) == 0 or count == self.minimum + 1

    def _steps_to_refresh(self, count: int) -> int:
        """After ``count`` steps, how many may come before there is another refresh."""
        nearest = self._every(count + 1) - 1 - count % self._every(count + 1)
        return min(nearest, self.minimum - count) if count <= self.minimum else nearest

    def _every(self, count: int) -> int:
        return REFRESH_STEPS if count <= self.window else 2 * REFRESH_STEPS
