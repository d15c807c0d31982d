"""FlatOutput: the activation behind the last layer passes next to nothing of what the loss asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.progress import APART
from gradwatch.records import Severity
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
        [(13, 'fc: 0 of what arrived at its output at first still does, and the loss asks for 100% of what it did')]
    """

    name: ClassVar[str] = "flat_output"
    severity: ClassVar[Severity] = Severity.ERROR
    quantity: ClassVar[str] = "gradient at its output, relative to the first ones,"
    by_looks: ClassVar[bool] = True

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
        stats, run = history.now, self._run
        asked = np.nan if stats.loss_gradient is None else stats.loss_gradient
        passed = np.nan if stats.output_gradient is None else stats.output_gradient
        of_classes = stats.output_error is not None and np.isfinite(stats.output_error)
        is_known = not stats.half and np.isfinite([asked, passed]).all() and not of_classes
        value, flat = np.nan, False
        if is_known and run["looks"] < FIRST:
            run["asked"], run["passed"] = max(run["asked"], asked), max(run["passed"], passed)
            run["looks"] += 1
        elif is_known and run["passed"] > 0:
            value = passed / run["passed"]
            alike = stats.output_variation is not None and stats.output_variation < ALIKE
            flat = bool(value <= self.passed and alike)
            if not flat:
                run["row"], run["sum"], run["since"] = 0, 0.0, history.count
            run["row"], run["sum"] = run["row"] + flat, run["sum"] + asked * flat
        enough = self.late_patience if history.count - run["since"] > APART else self.patience
        left = run["sum"] / run["row"] / run["asked"] if flat and run["asked"] > 0 else np.nan
        last = last_layer(stats)
        bad = last & flat & (run["row"] >= enough) & (left >= self.asked)
        self._left = left
        self._episodes.hasten(bad, self.patience - 1)  # the looks in a row have been counted
        of_all = np.full(len(last), value), np.full(len(last), self.passed)
        return Judgement(*of_all, bad, good=last & (value > self.passed), known=last & np.isfinite(value))

    def describe(self, value: float, threshold: float) -> str:
        return (
            f"{value:.2g} of what arrived at its output at first still does, and the loss asks for {self._left:.0%} of "
            "what it did"
        )

    def reset(self) -> None:
        super().reset()
        self._run = self._remembered["run"] = ModelState(looks=0, asked=0.0, passed=0.0, row=0, sum=0.0, since=0)
        self._left = np.nan


ALIKE = 0.01
"""Share of the outputs that differs from example to example below which the network says the same of all. Of a learned
segmentation, whose overlap may be asked for whatever its sigmoids pass, it is a half."""

FIRST = 5
"""Looks at the start that tell what the loss asked for, and how much of it arrived."""
