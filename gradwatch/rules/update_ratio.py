"""UpdateRatio: a step moves the weights by as much as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.patterns import PerLayer
from gradwatch.records import Severity, StepStats
from gradwatch.rules.base import Judgement, LayerRule, is_shallow
from gradwatch.rules.state import ModelState


@dataclass
class UpdateRatio(LayerRule):
    """A step changes the weights by too much or too little of their size.

    Too much is asked of the whole model first: a single layer that begins at zero may well move by more than its size.
    The ratio is measured at each of the first steps and at the sampled ones (``histogram_every_n_steps``), and
    ``patience`` and ``recovery`` count those measurements. Where there is a single layer to train, as in linear
    regression, it must happen three times in a row while the gradient grows. Nothing is measured where the monitor
    knows that the optimizer is LBFGS, which takes many steps in one.

    Args:
        high: upper limit of ``|step| / |weights|``, of all layers together and of each that is named.
        again: the same for the second of the first steps that exceeds it, in a network of at least four layers, where
            the changes of all layers multiply, or with a recurrent layer that goes one way, whose change
            multiplies at each time step.
        low: lower limit of each layer, 0 for none: a learning rate that warms up from zero is below any for a while.
        patience: measurements in a row before the alert.
        recovery: measurements in a row within the range before the episode is over.

    ``high`` and ``low`` are a number, or a number per pattern of layer names: ``{"embedding": 1.0}``.

    Raises:
        ValueError: when an argument is out of range, or ``low`` is not below ``high``.
        TypeError: when it is not a number.

    Example:
        >>> history = History.from_grad_norms(fc=[1.0], out=[1.0])
        >>> from dataclasses import replace
        >>> for step in (1, 2):
        ...     history.append(replace(history.latest, step=step, update_ratio=np.array([0.9, 1e-3])))
        >>> for alert in UpdateRatio().check(history):
        ...     print(alert.message)
        fc: a step changed the weights by 90% of their size

    Source: the ratio of update to weights, about 1e-3 in healthy training, is from Karpathy's CS231n notes; SageMaker
    Debugger's WeightUpdateRatio, whose range is 1e-8 to 10, judges each tensor.
    """

    name: ClassVar[str] = "update_ratio"
    severity: ClassVar[Severity] = Severity.ERROR
    grouped: ClassVar[bool] = True
    quantity: ClassVar[str] = "update ratio"

    high: PerLayer = 0.6
    # Half of the weights' size is what RMSprop and Adagrad may begin with; more forgets what they were initialised to.
    again: PerLayer = 0.15
    # The first steps of healthy networks of that kind in docs/detection.md stay below 0.1, or one of them is 0.12.
    low: PerLayer = 0.0
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        self._check_limit("high", above=0)
        self._check_limit("again", above=0)
        self._check_limit("low", at_least=0)
        super().__post_init__()
        if not isinstance(self.high, Mapping) and not isinstance(self.low, Mapping) and self.low >= self.high:
            raise ValueError(f"UpdateRatio: low={self.low!r} must be below high={self.high!r}")

    def is_calm(self, history: History) -> bool:
        assert history.latest is not None
        return history.latest.update_ratio is None

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        ratio = np.full(len(stats.layers), np.nan) if stats.update_ratio is None else stats.update_ratio
        high, low = self.limit("high", stats.layers), self.limit("low", stats.layers)
        known = ~np.isnan(ratio)
        of_all = np.inf if stats.total_update is None else stats.total_update
        if self._again(history):
            high = np.fmin(high, self.limit("again", stats.layers))
        too_much = (ratio > high) & ((of_all > high) | np.isnan(of_all))
        self._row["steps"] = self._row["steps"] + 1 if too_much.any() else 0
        grows = history.total_norm[-1] > 1.5 * history.total_norm[-4:][0]
        too_much &= not is_shallow(stats) or (self._row["steps"] >= 3 and grows)
        bad = known & (too_much | (ratio < low))
        return Judgement(ratio, np.where(ratio < low, low, high), bad, good=known & ~bad, known=known)

    def reset(self) -> None:
        super().reset()
        self._row = self._remembered["row"] = ModelState(steps=0, large=0)

    def _again(self, history: History) -> bool:
        """Whether this is one of the first steps, and not the first of them that is large for a deep network."""
        stats = history.latest
        assert stats is not None
        is_deep = np.count_nonzero(stats.has_grad) >= DEEP or _goes_through_time(stats)
        if history.count > EARLY or stats.update_ratio is None or not is_deep:
            return False
        large = (stats.total_update or 0.0) > self.limit("again", stats.layers).max()
        self._row["large"] += large
        return bool(large and self._row["large"] > 1)

    def describe(self, value: float, threshold: float) -> str:
        return f"a step changed the weights by {value:.0%} of their size"


def _goes_through_time(stats: StepStats) -> bool:
    """Whether a layer is applied at one time step after the other: unrolled, it is a deep network."""
    return stats.time_ratio is not None and not np.isnan(stats.time_ratio).all()


DEEP = 4
"""Layers from which the changes of all of them multiply (Bernstein et al., NeurIPS 2020)."""
