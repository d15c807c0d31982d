"""Skipped: a gradient scaler skips steps, because at its loss scale gradients overflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming
from gradwatch.history import History
from gradwatch.records import Alert, BoolArray, Severity, StepStats
from gradwatch.rules.base import Judgement, LayerRule, some_of


@dataclass
class Skipped(LayerRule):
    """A ``torch.amp.GradScaler`` skips a step because a gradient is not finite.

    Now and then that is how it finds its loss scale, so the first of the steps skipped in a row is only reported, with
    severity INFO and the layers whose gradients overflowed. Where no scale helps, the values themselves are not finite.

    Args:
        patience: steps skipped in a row before it is a warning.
        recovery: steps taken in a row before that episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc1=[1.0], fc2=[1.0])
        >>> overflowed = np.array([float("inf"), 1.0])
        >>> history.append(replace(history.latest, step=1, grad_norm=overflowed, skipped=True))
        >>> for alert in Skipped().check(history):
        ...     print(alert.step, alert.severity.name, alert.message)
        1 INFO fc1: the gradient overflowed at this loss scale, the GradScaler skipped the step
    """

    name: ClassVar[str] = "skipped"
    severity: ClassVar[Severity] = Severity.ERROR
    takes_skipped: ClassVar[bool] = True

    patience: int = 40
    # 40 halvings take even a scale of 2**40 down to 1: what overflows still is no matter of scale.
    recovery: int = 1

    def sees(self, stats: StepStats) -> bool:
        """Whether the step was skipped."""
        return stats.skipped

    def calm_steps(self, history: History, coming: Coming) -> int:
        return len(coming)

    def judge(self, history: History) -> Judgement:
        stats = history.now
        overflowed = _overflowed(stats)
        bad = overflowed if overflowed.any() else stats.has_grad  # what overflowed may be a layer that is not watched
        taken = stats.has_grad & (not stats.skipped)
        # Layers take turns in overflowing: one that does not in this step has not recovered.
        return Judgement(stats.grad_norm, np.full(len(bad), np.inf), bad & stats.skipped, good=taken, known=taken)

    def describe(self, value: float, threshold: float) -> str:
        return (
            f"{self.patience} steps in a row were skipped: no loss scale is small enough, so this is no overflow; look "
            "for NaN or inf in the data, the loss and the weights"
        )

    def _check_latest(self, history: History) -> list[Alert]:
        stats = history.now
        self.align(stats.layers)
        if not stats.skipped and self._episodes.quiet:
            return []
        first = stats.skipped and not self._episodes["bad_steps"][stats.has_grad].any()
        alerts = super()._check_latest(history)
        return [self._report(stats), *alerts] if first else alerts

    def _report(self, stats: StepStats) -> Alert:
        """The first of the steps skipped in a row."""
        rows = np.flatnonzero(_overflowed(stats))[::-1]  # the output's first: there an overflow begins
        names = [stats.layers[i] for i in rows]
        layer, layers = (names[0], ()) if len(names) == 1 else (None, tuple(names[::-1]))
        value = float(stats.grad_norm[rows[0]]) if names else stats.total_norm
        which = f"{some_of(names)}: the gradient" if names else "a gradient that is not watched"
        message = f"{which} overflowed at this loss scale, the GradScaler skipped the step"
        return Alert(stats.step, self.name, layer, Severity.INFO, value, np.inf, message, layers=layers)


def _overflowed(stats: StepStats) -> BoolArray:
    return stats.has_grad & ~np.isfinite(stats.grad_norm)
