"""Stalled: no step moves the weights, though they have a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import ModelState


@dataclass
class Stalled(LayerRule):
    """Since the run began no step has moved the weights by anything to speak of.

    Either the learning rate is far too low, which is a WARNING, since it may be meant so, and becomes an ERROR where
    nothing is learned. Or next to nothing has moved at all, an ERROR: the optimizer has other parameters, the learning
    rate is zero, or the steps are lost in rounding, as those of weights in half precision soon are. A run that has
    converged has moved before.

    Args:
        low: limit of ``|step| / |weights|`` over all layers, of the largest step that was measured.
        warmup: steps at the start that are not judged, as a schedule may begin at zero.
        patience: measurements in a row before the alert.
        recovery: measurements in a row above the limit before the episode is over.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0] * 60)
        >>> history.append(replace(history.latest, step=60, update_ratio=np.array([2e-9]), total_update=2e-9))
        >>> [alert.message for alert in Stalled().check(history)]
        ['fc: no step so far has changed the weights by more than 2e-09 of their size']

    Source: SageMaker Debugger's WeightUpdateRatio has 1e-8 as its limit, of each tensor; 1e-3 is usual (Karpathy,
    CS231n).
    """

    name: ClassVar[str] = "stalled"
    severity: ClassVar[Severity] = Severity.WARNING
    grouped: ClassVar[bool] = True
    quantity: ClassVar[str] = "update ratio"

    low: float = 1e-6
    # A thousandth of what is usual: it takes a million steps to make anew what was there.
    warmup: int = 50
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        check_number("Stalled: low", self.low, at_least=0)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def look(self, history: History) -> None:
        """How far the largest step so far has moved the weights."""
        stats = history.latest
        assert stats is not None
        if stats.total_update is not None:
            self._most["update"] = np.fmax(self._most["update"], stats.total_update)

    def is_calm(self, history: History) -> bool:
        assert history.latest is not None
        return history.latest.total_update is None

    def judge(self, history: History) -> Judgement:
        stats, most = history.latest, self._most["update"]
        assert stats is not None
        known = stats.has_grad & (stats.grad_norm > 0) & (stats.total_update is not None)
        bad = known & (most <= self.low) & (history.count > self.warmup)
        value, limit = np.full(len(bad), most), np.full(len(bad), self.low)
        severity = Severity.ERROR if most < ROUNDING else None
        good = known & (most > self.low)
        return Judgement(value, limit, bad, good, known=known, severity=severity, worsens=True)

    def describe(self, value: float, threshold: float) -> str:
        if value == 0:
            return "no step so far has changed the weights at all"
        return f"no step so far has changed the weights by more than {value:.3g} of their size"

    def reset(self) -> None:
        super().reset()
        self._most = self._remembered["most"] = ModelState(update=np.nan)


ROUNDING = 2.0**-24
"""Relative size of what float32 adds to a number without an effect."""
