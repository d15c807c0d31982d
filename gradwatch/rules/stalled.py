"""Stalled: the steps move the weights by next to nothing, though they have a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.progress import NOTHING
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import ModelState


@dataclass
class Stalled(LayerRule):
    """Since the run began no step has moved the weights by anything to speak of, or none does any more.

    Either the learning rate is far too low, which is a WARNING, since it may be meant so, and becomes an ERROR where
    nothing is learned. Or next to nothing has moved at all, an ERROR: the optimizer has other parameters, the learning
    rate is zero, or the steps are lost in rounding, as those of weights in half precision soon are. A run that has
    converged has moved before.

    It is an ERROR as well where nothing was learned (:class:`~gradwatch.progress.Progress`) and the latest steps are
    too small to, as under a schedule that has come to its end, a gradient that is clipped to next to nothing, or an
    Adadelta, whose first steps are tiny.

    Args:
        low: limit of ``|step| / |weights|`` over all layers, of the largest step that was measured; and of the latest
            two in a network that has learned nothing.
        lasting: the same of those two after ``long`` steps.
        long: see there.
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
    by_looks: ClassVar[bool] = True

    low: float = 1e-6
    # A thousandth of what is usual: it takes a million steps to make anew what was there.
    lasting: float = 1e-5
    # Fine-tuning by Adam at a learning rate of 1e-6 takes steps of 5e-5.
    long: int = 500
    warmup: int = 50
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        check_number("Stalled: low", self.low, at_least=0)
        check_number("Stalled: lasting", self.lasting, at_least=0)
        self._check_steps("long", at_least=0)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def look(self, history: History) -> None:
        """How far the largest step so far has moved the weights, and the latest two."""
        stats, most = history.now, self._most
        if stats.total_update is not None:
            most["update"] = np.fmax(most["update"], stats.total_update)
            most["before"], most["latest"] = most["latest"], stats.total_update

    def judge(self, history: History) -> Judgement:
        stats, most = history.now, self._most["update"]
        known = stats.has_grad & (stats.grad_norm > 0) & (stats.total_update is not None)
        never, value, limit = most <= self.low, most, self.low
        latest = max(self._most["before"], self._most["latest"])
        late = self.lasting if history.count > self.long else self.low
        no_more = not never and latest <= late and bool(history.progress.stands_still(but=NOTHING))
        self._told = ""
        if no_more:
            value, limit = latest, late
            self._told = f"; {history.progress.in_words}"
        bad = known & (never or no_more) & (history.count > self.warmup)
        severity = Severity.ERROR if most < ROUNDING or no_more else None
        good = known & (not never) & (latest > late)
        judged = np.full(len(bad), value), np.full(len(bad), limit)
        return Judgement(*judged, bad, good, known=known, severity=severity, certain=bad & no_more, worsens=NOTHING)

    def describe(self, value: float, threshold: float) -> str:
        when = "lately" if self._told else "so far"
        how_far = "at all" if value == 0 else f"by more than {value:.3g} of their size"
        return f"no step {when} has changed the weights {how_far}{self._told}"

    def reset(self) -> None:
        super().reset()
        self._most = self._remembered["most"] = ModelState(update=np.nan, before=np.nan, latest=np.nan)
        self._told = ""


ROUNDING = 2.0**-24
"""Relative size of what float32 adds to a number without an effect."""
