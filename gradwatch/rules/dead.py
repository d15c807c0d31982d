"""Dead: a layer's gradient is exactly zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import LayerState


@dataclass
class Dead(LayerRule):
    """A layer's gradient is exactly zero, step after step, while the model trains.

    Where the layer and all before it are dead and one after it is not, nothing before that one learns any more: ERROR,
    within a few steps. A dead layer among living ones may be an expert that is never chosen or a detached branch: a
    WARNING to look, after more patience. A layer without a gradient (frozen, not used) is not dead, and where all
    layers are zero there is nothing to learn from, as with a hinge loss whose margins are kept.

    Args:
        patience: steps in a row before the alert, for layers that are cut off from the output.
        isolated_patience: the same for a dead layer among living ones.
        recovery: steps in a row with a gradient before the episode is over.
        warmup: steps at the start that are not judged: branches initialised to zero come alive there.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> for alert in Dead().check(History.from_grad_norms(fc1=[0.0] * 10, fc2=[1.0] * 10)):
        ...     print(alert.step, alert.severity.name, alert.message)
        8 ERROR fc1: gradient was exactly zero for 6 steps, and so was that of every layer before it

    Source: Lu et al., Commun. Comput. Phys. 28, 2020 (dying ReLU).
    """

    name: ClassVar[str] = "dead"
    severity: ClassVar[Severity] = Severity.WARNING

    patience: int = 6
    # More than the steps in which one network of several is trained and the others' gradients are left at zero.
    isolated_patience: int = 50
    recovery: int = 1
    warmup: int = 3

    def __post_init__(self) -> None:
        self._check_steps("isolated_patience", at_least=1)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def is_calm(self, history: History) -> bool:
        assert history.latest is not None
        if not history.latest.norm_range[0] > 0:
            return False
        self._zero["steps"][:] = 0
        return True

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        self._zero.align(stats.layers)
        zero = stats.has_grad & (stats.grad_norm == 0)
        alive = stats.has_grad & ~zero
        cut_off = zero & ~np.logical_or.accumulate(alive) & alive.any()  # before the first that is alive
        steps = np.where(zero & (history.count > self.warmup), self._zero["steps"] + 1, 0)
        self._zero["steps"] = steps
        bad = (steps > 0) & (cut_off | (steps > self.isolated_patience - self.patience))
        self._episodes.align(stats.layers)
        opens = bad & ~self._episodes["open"] & (self._episodes["bad_steps"] >= self.patience - 1)
        self._cut_off = bool((opens & cut_off).any())
        waits = opens & ~cut_off & self._cut_off  # the alerts of one step are of one kind
        known = stats.has_grad & np.isfinite(stats.grad_norm) & ~waits
        severity = Severity.ERROR if self._cut_off else None
        return Judgement(stats.grad_norm, np.zeros(len(zero)), bad & ~waits, good=alive, known=known, severity=severity)

    def describe(self, value: float, threshold: float) -> str:
        if self._cut_off:
            return f"gradient was exactly zero for {self.patience} steps, and so was that of every layer before it"
        return f"gradient was exactly zero for {self.isolated_patience} steps"

    def reset(self) -> None:
        super().reset()
        self._zero = self._remembered["zero"] = LayerState(steps=0)
        self._cut_off = False
