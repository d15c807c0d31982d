"""NonFinite: NaN or inf in the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming, leading
from gradwatch.history import History
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.verdict import name_ranks


@dataclass
class NonFinite(LayerRule):
    """A gradient holds NaN or inf. The layers of one step make one alert, which names the ranks of a sharded model.

    In a model that is called in float16 it is an :class:`~gradwatch.rules.Overflow`.

    Args:
        patience: steps in a row before the alert.
        recovery: finite steps in a row before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> for alert in NonFinite().check(History.from_grad_norms(fc=[1.0, float("nan")] + [1.0] * 3)):
        ...     print(alert.step, alert.severity.name, alert.message)
        1 ERROR fc: gradient is nan
        4 INFO fc: recovered from nonfinite after 3 steps, gradient norm now 1
    """

    name: ClassVar[str] = "nonfinite"
    severity: ClassVar[Severity] = Severity.ERROR
    follows: ClassVar[tuple[str, ...]] = ("not_zeroed", "exploding", "update_ratio", "unstable")
    in_half: ClassVar[bool] = False

    patience: int = 1
    recovery: int = 3
    # NaN at every other step is one fault, not a new one each time.

    def calm_steps(self, history: History, coming: Coming) -> int:
        return leading(coming.largest < np.inf)

    def judge(self, history: History) -> Judgement:
        stats = history.now
        finite = np.isfinite(stats.grad_norm)
        self._where = f" on {name_ranks(stats.nonfinite_ranks)}" if stats.nonfinite_ranks else ""
        limit = np.full(len(finite), np.inf)
        bad = stats.has_grad & ~finite & (history.half == self.in_half)
        return Judgement(stats.grad_norm, limit, bad, good=stats.has_grad & finite)

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient is {value}{self._where}"
