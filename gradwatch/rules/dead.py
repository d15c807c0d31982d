"""Dead: a layer's gradient is exactly zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule


@dataclass
class Dead(LayerRule):
    """A layer's gradient is exactly zero, step after step, while the layer takes part in training.

    A layer without a gradient (frozen, not used) is not dead. Dead ReLU units, a detached branch and an expert that is
    never chosen look the same from here, so this asks to look rather than calls the run lost.

    Args:
        patience: steps in a row before the alert.
        recovery: steps in a row with a gradient before the episode is over.
        warmup: steps at the start that are not judged: branches initialised to zero come alive there.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> for alert in Dead(patience=3, warmup=0).check(History.from_grad_norms(fc=[0.0] * 5)):
        ...     print(alert.message)
        fc: gradient was exactly zero for 3 steps

    Source: Lu et al., Commun. Comput. Phys. 28, 2020 (dying ReLU).
    """

    name: ClassVar[str] = "dead"
    severity: ClassVar[Severity] = Severity.WARNING

    patience: int = 50
    recovery: int = 1
    warmup: int = 10

    def __post_init__(self) -> None:
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def is_calm(self, history: History) -> bool:
        assert history.latest is not None
        return history.latest.norm_range[0] > 0

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        zero = stats.has_grad & (stats.grad_norm == 0)
        bad = zero & (history.count > self.warmup)
        return Judgement(stats.grad_norm, np.zeros(len(zero)), bad, good=stats.has_grad & ~zero)

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient was exactly zero for {self.patience} steps"
