"""UpdateRatio: how far a step moves the weights, for their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import PerLayer
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule


@dataclass
class UpdateRatio(LayerRule):
    """A step changes a layer's weights by too much or too little of their size.

    The ratio is measured once per sampled step (``histogram_every_n_steps``), and ``patience`` and ``recovery`` count
    those measurements. It is not among the default rules: a learning rate that warms up from zero, or a layer that
    starts near zero, leaves any fixed range for a while.

    Args:
        high: upper limit of ``|step| / |weights|``.
        low: lower limit, 0 for none.
        patience: measurements in a row before the alert.
        recovery: measurements in a row within the range before the episode is over.

    ``high`` and ``low`` are a number, or a number per pattern of layer names: ``{"embedding": 1.0}``.

    Raises:
        ValueError: when an argument is out of range, or ``low`` is not below ``high``.
        TypeError: when it is not a number.

    Example:
        >>> history = History.from_grad_norms(fc=[1.0])
        >>> from dataclasses import replace
        >>> for step in (1, 2):
        ...     history.append(replace(history.latest, step=step, update_ratio=np.array([0.9])))
        >>> for alert in UpdateRatio().check(history):
        ...     print(alert.message)
        fc: a step changed the weights by 90% of their size

    Source: the ratio of update to weights, about 1e-3 in healthy training, is from Karpathy's CS231n notes; the range
    follows SageMaker Debugger's WeightUpdateRatio, 1e-8 to 10, more strictly above.
    """

    name: ClassVar[str] = "update_ratio"
    severity: ClassVar[Severity] = Severity.WARNING
    quantity: ClassVar[str] = "update ratio"

    high: PerLayer = 0.5
    # Healthy training moves weights by about 1e-3 of their size a step; half of it forgets what was learned.
    low: PerLayer = 0.0
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        self._check_limit("high", above=0)
        self._check_limit("low", at_least=0)
        super().__post_init__()
        if not isinstance(self.high, Mapping) and not isinstance(self.low, Mapping) and self.low >= self.high:
            raise ValueError(f"UpdateRatio: low={self.low!r} must be below high={self.high!r}")

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        ratio = np.full(len(stats.layers), np.nan) if stats.update_ratio is None else stats.update_ratio
        high, low = self.limit("high", stats.layers), self.limit("low", stats.layers)
        known = ~np.isnan(ratio)
        bad = known & ((ratio > high) | (ratio < low))
        return Judgement(ratio, np.where(ratio < low, low, high), bad, good=known & ~bad, known=known)

    def describe(self, value: float, threshold: float) -> str:
        return f"a step changed the weights by {value:.0%} of their size"
