"""OutOfReach: targets that the activation behind the last layer cannot give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.records import Severity, or_nan
from gradwatch.rules.asked import Asked
from gradwatch.rules.base import Judgement, LayerRule, last_layer


@dataclass
class OutOfReach(LayerRule):
    """A good part of the error that there was at first is left, and lies beyond what the model can give: a WARNING.

    So it is where a ReLU, a sigmoid or a softmax lies behind the last layer, and targets are below zero, or above one:
    what can be learned is learned, and those are not. Of a cross entropy the error itself is known, and it is not
    judged. It is an ERROR where nearly all of the error is there. It is seen at the sampled steps.

    Args:
        share: limit of the share of the squared gradient at the model's outputs that asks for what it cannot give.
        lost: limit of that part of the squared gradient, relative to the whole of the first looks.
        nearly_all: the same for an ERROR.
        warmup: steps at the start that are not judged.
        patience: looks in a row before the alert.
        recovery: looks in a row below ``share`` before the episode is over.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history, rule, found = History.from_grad_norms(fc=[1.0]), OutOfReach(warmup=10), []
        >>> for step in range(1, 20):
        ...     seen = {"output_gradient": 0.1, "loss_gradient": 0.8, "out_of_reach": 0.9}
        ...     history.append(replace(history.latest, step=step, **seen))
        ...     found += rule.check(history)
        >>> [(alert.step, alert.message.partition(",")[0]) for alert in found]
        [(11, 'fc: 90% of the squared error is beyond what the activation behind it can give')]
    """

    name: ClassVar[str] = "out_of_reach"
    severity: ClassVar[Severity] = Severity.WARNING
    quantity: ClassVar[str] = "share of the squared error beyond its reach"
    by_looks: ClassVar[bool] = True
    looks_at: ClassVar[tuple[str, ...]] = ("out_of_reach",)

    share: float = 0.6
    # Of targets within its reach a ReLU is asked for nothing beyond; of features every other zero may be pushed on.
    lost: float = 0.25
    nearly_all: float = 0.75
    warmup: int = 100
    patience: int = 2
    recovery: int = 1

    def __post_init__(self) -> None:
        for argument in ("share", "lost", "nearly_all"):
            check_number(f"OutOfReach: {argument}", getattr(self, argument), above=0, at_most=1)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def judge(self, history: History) -> Judgement:
        stats, asked, value = history.now, self._asked, np.nan
        if Asked.is_known(stats) and not np.isnan(or_nan(stats.out_of_reach)):
            value = or_nan(stats.out_of_reach)
            asked.look(history, seen=value >= self.share and history.count > self.warmup)
        last = last_layer(stats)
        lost = value * asked.left**2
        bad = last & (asked["row"] >= self.patience) & (lost >= self.lost)
        certain = bad & (lost >= self.nearly_all)
        severity = Severity.ERROR if certain.any() else None
        self._episodes.hasten(bad, self.patience - 1)  # the looks in a row have been counted
        of_all = np.full(len(last), value), np.full(len(last), self.share)
        good, known = last & (value < self.share), last & np.isfinite(value)
        return Judgement(*of_all, bad, good, known=known, severity=severity, certain=certain)

    def describe(self, value: float, threshold: float) -> str:
        return (
            f"{value:.0%} of the squared error is beyond what the activation behind it can give, and "
            f"{self._asked.left**2:.0%} of the first one is left"
        )

    def reset(self) -> None:
        super().reset()
        self._asked = self._remembered["asked"] = Asked()
