"""Stalled: the steps move the weights by next to nothing, though they have a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.progress import NOTHING
from gradwatch.records import Severity, StepStats, or_nan
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import LayerState, ModelState


@dataclass
class Stalled(LayerRule):
    """Since the run began no step has moved the weights by anything to speak of, or none does any more.

    Either the learning rate is far too low, which is a WARNING, since it may be meant so, and becomes an ERROR where
    nothing is learned. Or next to nothing has moved at all, an ERROR: the optimizer has other parameters, the learning
    rate is zero, or the steps are lost in rounding, as those of weights in half precision soon are. A run that has
    converged has moved before.

    It is an ERROR as well where nothing was learned (:class:`~gradwatch.progress.Progress`) and the latest steps are
    too small to, as under a schedule that has come to its end, a gradient that is clipped to next to nothing, or an
    Adadelta, whose first steps are tiny. Where nothing was learned, steps that never were as large as ``slow`` are a
    WARNING, unless they grow, as those of a learning rate that is warmed up; of a cross entropy, of which that is
    known for certain, they become an ERROR after ``long``, and of other losses it takes a quarter of that size.

    So is a single layer that no step has moved to speak of, while others move and it has a good part of the gradient:
    its parameter group has a learning rate of next to zero, or its steps are lost in rounding. That is a WARNING.

    Tables of which a step touches few rows hardly move as a whole, so a network that is mostly these is not judged.

    Args:
        low: limit of ``|step| / |weights|`` over all layers, of the largest step that was measured; and of the latest
            two in a network that has learned nothing.
        lasting: the same of those two after ``long`` steps.
        long: see there.
        slow: limit of the largest step, where nothing was learned.
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
    follows: ClassVar[tuple[str, ...]] = (
        "loss_mismatch",
        "no_activation",
        "untrained",
        "unregistered",
        "symmetric",
        "vanishing",
        "saturated",
        "underflow",
        "dead",
        "skipped",
        "flat_output",
    )
    quantity: ClassVar[str] = "update ratio"
    by_looks: ClassVar[bool] = True
    looks_at: ClassVar[tuple[str, ...]] = ("total_update",)

    low: float = 1e-6
    # A thousandth of what is usual: it takes a million steps to make anew what was there.
    lasting: float = 1e-5
    # Fine-tuning by Adam at a learning rate of 1e-6 takes steps of 5e-5.
    long: int = 500
    slow: float = 1e-4
    # No healthy program of the development half that had learned nothing yet took steps below 5e-4 (docs/detection.md).
    warmup: int = 50
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        check_number("Stalled: low", self.low, at_least=0)
        check_number("Stalled: lasting", self.lasting, at_least=0)
        check_number("Stalled: slow", self.slow, at_least=0)
        self._check_steps("long", at_least=0)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def look(self, history: History) -> None:
        """How far the largest step so far has moved the weights, and the latest two."""
        stats, most = history.now, self._most
        if stats.total_update is not None:
            most["update"] = np.fmax(most["update"], stats.total_update)
            most["before"], most["latest"] = most["latest"], stats.total_update
        if stats.update_ratio is not None and len(history) > 1:
            had = history.grad_norm[-2] > GOOD_PART * history.total_norm[-2]
            total = or_nan(stats.total_update)
            least = APART * total if 0 < total < np.inf else 0.0
            still = self._layers["still"] + (had & (stats.update_ratio <= least))
            self._layers["still"] = np.where(stats.update_ratio > least, -np.inf, still)
        if stats.zero_fraction is not None:
            tables = self._layers["table"] = stats.zero_fraction > UNTOUCHED
            if stats.numel is not None:
                most["table"] = bool(stats.numel[tables].sum() > stats.numel.sum() / 2)

    def sees(self, stats: StepStats) -> bool:
        """Whether one is known and any of the latest ones, or of a layer, was small."""
        most = self._most
        small = not min(most["update"], most["before"], most["latest"]) > max(self.low, self.lasting, self.slow)
        return super().sees(stats) and (small or bool((self._layers["still"] >= LOOKS).any()))

    def judge(self, history: History) -> Judgement:
        stats, most, progress = history.now, self._most["update"], history.progress
        is_known = stats.total_update is not None and not self._most["table"]
        known = stats.has_grad & (stats.grad_norm > 0) & is_known
        never = most <= self.low
        latest = max(self._most["before"], self._most["latest"])
        late = self.lasting if history.count > self.long else self.low
        nothing = progress.stands_still(but=NOTHING)
        no_more = not never and nothing and latest <= late
        limit = self.slow if progress.of_classes else UNCERTAIN * self.slow
        slow = not (never or no_more) and nothing and most <= limit
        grows = self._most["latest"] > GROWS * self._most["before"]
        value = most if never or slow else latest
        limit = late if no_more else limit if slow else self.low
        alone = known & (self._layers["still"] >= LOOKS) & ~self._layers["table"] & (not (never or no_more or slow))
        bad = (alone | (known & (never or no_more or (slow and not grows)))) & (history.count > self.warmup)
        good = known & (not slow) & (latest > late) & ~alone
        certain = bad & (no_more or (slow and progress.of_classes and history.count > self.long))
        severity = Severity.ERROR if most < ROUNDING or certain.any() else None
        judged = np.where(alone, 0.0, value), np.where(alone, 0.0, limit)
        says = f"{_moved(value, 'lately' if no_more else 'so far')}; {progress.in_words}" * bool(no_more or slow)
        worsens = 0.0 if slow else NOTHING
        return Judgement(
            *judged, bad, good, known=known, severity=severity, certain=certain, says=says, worsens=worsens
        )

    def describe(self, value: float, threshold: float) -> str:
        if threshold == 0:
            return f"steps have changed these weights by nothing, or less than {APART:.2%} of what they changed all by"
        return _moved(value, "so far")

    def reset(self) -> None:
        super().reset()
        self._most = self._remembered["most"] = ModelState(update=np.nan, before=np.nan, latest=np.nan, table=False)
        self._layers = self._remembered["layers"] = LayerState(still=0.0, table=False)


UNCERTAIN = 0.25
"""Factor of the limit where it is not known for certain that nothing was learned."""

UNTOUCHED = 0.9
"""Share of a layer's gradient that is exactly zero where a step touches a part of it, as the rows of an embedding; dead
units make it less."""

GOOD_PART = 1e-2
"""Share of the whole gradient that a layer has where its steps should be no less than those of others."""

LOOKS = 2
"""At which it was not moved, before that is told."""

APART = 1e-4
"""Share of what all layers together move, up to which one does not: fine-tuning divides learning rates by a hundred or
a thousand."""

ROUNDING = 2.0**-24
"""Relative size of what float32 adds to a number without an effect."""

GROWS = 1.1
"""Ratio of two steps a hundred apart from which they grow, as they do for a thousand steps of a linear warmup."""


def _moved(value: float, when: str) -> str:
    how_far = "at all" if value == 0 else f"by more than {value:.3g} of their size"
    return f"no step {when} has changed the weights {how_far}"
