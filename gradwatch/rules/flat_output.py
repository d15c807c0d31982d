"""FlatOutput: the activation behind the last layer passes next to nothing of what the loss asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.progress import APART
from gradwatch.records import Severity
from gradwatch.rules.asked import Asked
from gradwatch.rules.base import Judgement, LayerRule, last_layer
from gradwatch.rules.state import ModelState


@dataclass
class FlatOutput(LayerRule):
    """The loss asks as much of the model's outputs as at the start, and next to none of it arrives at the last layer.

    So it is where a ReLU behind the last layer gives nothing but zeros, or a sigmoid nothing but ones, as for targets
    that it cannot reach: the network is as good as detached from its loss. A run that has learned tells its examples
    apart, or is asked for less; and a cross entropy, of which the error itself is known, is not judged. It is seen at
    the first steps and at the sampled ones.

    Args:
        passed: limit of the gradient at the last layer's output, relative to the first looks.
        asked: least gradient at the model's outputs, relative to the first looks.
        patience: looks in a row before the alert.
        late_patience: the same where they are further apart than a hundred steps together.
        recovery: looks in a row at which it arrives before the episode is over.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history, rule, found = History.from_grad_norms(fc=[1.0]), FlatOutput(), []
        >>> for step in range(1, 20):
        ...     passed = 1.0 if step < 6 else 0.0
        ...     history.append(
        ...         replace(history.latest, step=step, output_gradient=passed, loss_gradient=1.0, output_variation=0)
        ...     )
        ...     found += rule.check(history)
        >>> [(alert.step, alert.message) for alert in found]
        [(13, 'fc: its output gets 0 of the gradient that it got at first, and the loss asks for 100% of what it did')]
    """

    name: ClassVar[str] = "flat_output"
    severity: ClassVar[Severity] = Severity.ERROR
    follows: ClassVar[tuple[str, ...]] = ("not_zeroed", "exploding", "update_ratio", "unstable", "out_of_reach")
    quantity: ClassVar[str] = "gradient at its output, as a share of the first,"
    by_looks: ClassVar[bool] = True
    looks_at: ClassVar[tuple[str, ...]] = ("loss_gradient",)

    passed: float = 0.01
    asked: float = 0.75
    # A binary cross entropy of probabilities asks for 2 when it begins and for 1 when all is learned.
    patience: int = 8
    late_patience: int = 3
    recovery: int = 1

    def __post_init__(self) -> None:
        check_number("FlatOutput: passed", self.passed, above=0, at_most=1)
        check_number("FlatOutput: asked", self.asked, above=0)
        self._check_steps("late_patience", at_least=1)
        super().__post_init__()

    def judge(self, history: History) -> Judgement:
        stats, asked, value, flat = history.now, self._asked, np.nan, False
        if Asked.is_known(stats):
            if asked.begins:
                self._passed["first"] = max(self._passed["first"], stats.output_gradient)
            elif self._passed["first"] > 0:
                value = stats.output_gradient / self._passed["first"]
                alike = stats.output_variation is not None and stats.output_variation < ALIKE
                flat = bool(value <= self.passed and alike)
            asked.look(history, seen=flat)
        last = last_layer(stats)
        enough = self.late_patience if history.count - asked["since"] > APART else self.patience
        bad = last & flat & (asked["row"] >= enough) & (asked.left >= self.asked)
        self._episodes.hasten(bad, self.patience - 1)  # the looks in a row have been counted
        of_all = np.full(len(last), value), np.full(len(last), self.passed)
        return Judgement(*of_all, bad, good=last & (value > self.passed), known=last & np.isfinite(value))

    def describe(self, value: float, threshold: float) -> str:
        return (
            f"its output gets {value:.2g} of the gradient that it got at first, and the loss asks for "
            f"{self._asked.left:.0%} of what it did"
        )

    def reset(self) -> None:
        super().reset()
        self._asked = self._remembered["asked"] = Asked()
        self._passed = self._remembered["passed"] = ModelState(first=0.0)


ALIKE = 0.01
"""Share of the outputs that differs from example to example below which the network says the same of all. Of a learned
segmentation, whose overlap may be asked for whatever its sigmoids pass, it is a half."""
