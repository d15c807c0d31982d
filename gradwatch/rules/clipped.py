"""Clipped: the gradients were clipped before they were measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming, leading
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.records import Alert, Severity
from gradwatch.rules.base import StepRule
from gradwatch.rules.state import ModelState

LOOK_EVERY = 5
"""Steps between two looks at a whole window, which take ten times as long as a step's other rules."""


@dataclass
class Clipped(StepRule):
    """The total norm stays the same while the layers' shares of it change: it is the limit of a clipping.

    Norms measured after clipping cannot show that a run explodes. A gradient that does not change at all is not taken
    for a clipped one, nor is one of which only some steps are clipped. Clipping by the monitor comes after measuring.

    Args:
        window: steps looked at, those without a finite gradient or skipped by a gradient scaler left out.
        tolerance: how much the total norm may change in them, relative to itself.
        change: how much the norm of at least one layer must change, relative to the total norm.
        recovery: steps in a row at another total norm before it is reported again.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> history = History.from_grad_norms(fc1=[0.6, 0.8] * 10, fc2=[0.8, 0.6] * 10)
        >>> for alert in Clipped().check(history):
        ...     print(alert.step, alert.severity.name, alert.message[:75])
        19 INFO you are looking at clipped gradients: the total norm stayed at 1 for 20 ste
    """

    name: ClassVar[str] = "clipped"

    window: int = 20
    tolerance: float = 2e-3
    # What rounding leaves after clipping float32 and float16 gradients; of bfloat16 ones it leaves more.
    change: float = 1e-2
    recovery: int = 100
    # Where only some steps are clipped, stretches of clipped ones are not news each time.

    def __post_init__(self) -> None:
        self._check_steps("window", at_least=2)
        self._check_steps("recovery", at_least=1)
        check_number("Clipped: tolerance", self.tolerance, above=0)
        check_number("Clipped: change", self.change, above=0)
        super().__post_init__()

    def reset(self) -> None:
        super().reset()
        self._state = self._remembered["episode"] = ModelState(level=0.0, at=0)

    def calm_steps(self, history: History, coming: Coming) -> int:
        if self._state["level"] > 0 or history.layers is not coming.layers:
            return 0
        total = np.append(history.total_norm[-1:], coming.total_norm)
        looks = np.arange(coming.count + 1, coming.count + len(total)) % LOOK_EVERY == 0
        with np.errstate(invalid="ignore"):  # inf after inf
            same = np.abs(np.diff(total)) <= self.tolerance * np.maximum(total[1:], total[:-1])
        looks &= same
        if np.logical_or.reduce(looks):
            norms = np.concatenate([history.grad_norm[-1:], coming.grad_norm])
            looks &= np.logical_or.reduce(norms[1:] != norms[:-1], axis=1)
        return leading(~looks)

    def _check_latest(self, history: History) -> list[Alert]:
        stats = history.now
        total = stats.total_norm
        if not 0 < total < np.inf:
            return []
        look = history.count % LOOK_EVERY == 0 and self._same(*history.total_norm[-2:].tolist())
        look = look and bool(np.logical_or.reduce(history.grad_norm[-1] != history.grad_norm[-2]))
        found = self._constant(history) if look else None
        state = self._state
        if found is None and state["level"] == 0:
            return []
        stays = self._same(total, state["level"])
        told = state["level"] > 0 and (stays or history.count - state["at"] < self.recovery)
        if found is not None or not told:
            state["level"] = 0.0 if found is None else total
        if found is not None or stays:
            state["at"] = history.count
        if found is None or told:
            return []
        message = (
            f"you are looking at clipped gradients: the total norm stayed at {total:.3g} for {self.window} steps; "
            "call monitor.step() before your clipping, or clip with monitor.clip_grad_norm_()"
        )
        return [Alert(stats.step, self.name, None, Severity.INFO, found, self.tolerance, message)]

    def _same(self, total: float, other: float = np.nan) -> bool:
        return abs(total - other) <= self.tolerance * max(total, other)

    def _constant(self, history: History) -> float | None:
        """How much the total norm changed in the window, where that is next to nothing for what the shares changed."""
        total = history.total_norm
        rows = np.flatnonzero(np.isfinite(total) & (total > 0) & ~history.skipped)[-self.window :]
        total = total[rows]
        spread = float(np.ptp(total) / total.max())
        if len(rows) < self.window or spread > self.tolerance:
            return None
        share, present = history.grad_norm[rows] / total[:, None], history.has_grad[rows]
        highest = np.max(share, axis=0, where=present, initial=0.0)
        lowest = np.min(share, axis=0, where=present, initial=np.inf)
        change = float(np.max(highest - lowest))
        # A smooth run that passes a peak of its total norm changes it by about the square of what the shares change.
        return spread if change > self.change and spread <= (change / 2) ** 2 else None
