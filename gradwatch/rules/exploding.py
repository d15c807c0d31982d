"""Exploding: a layer's gradient is far above what it was, or so large that the weights cannot follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import PerLayer
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.baseline import Baseline


@dataclass
class Exploding(LayerRule):
    """A layer's gradient norm stays above an absolute limit, or far above its own baseline.

    The absolute limit does not hold for a layer whose weights were measured to move little at each step: a loss in
    large units, or an optimizer that normalises, makes large gradients harmless. One high step is a
    :class:`~gradwatch.rules.Spike`.

    Args:
        threshold: absolute limit of the norm.
        calm_update: the absolute limit is for layers whose update ratio ``|step| / |weights|`` exceeds this, or is
            not known.
        growth: limit of the norm, relative to the layer's median over the ``window`` steps before.
        min_share: ``growth`` is for layers whose norm is at least this share of the largest one's.
        window: steps in the baseline.
        patience: steps in a row before the alert.
        recovery: steps in a row below half the limit before the episode is over.
        warmup: steps that a layer needs for its baseline.

    ``threshold`` and ``growth`` are a number, or a number per pattern of layer names: ``{"encoder.*": 1e4}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> rule = Exploding(patience=2)
        >>> for alert in rule.check(History.from_grad_norms(fc=[1.0, 5e3, 2e5])):
        ...     print(alert.message)
        fc: gradient norm 2e+05 stayed above 1e+03 for 2 steps

    Source: Pascanu, Mikolov and Bengio, ICML 2013, section 2.
    """

    name: ClassVar[str] = "exploding"
    severity: ClassVar[Severity] = Severity.ERROR

    threshold: PerLayer = 1e3
    # The fixed limit that separated published fault sets without a false alarm; healthy exceptions move calmly.
    calm_update: PerLayer = 0.1
    # Healthy training moves weights by about 1e-3 of their size a step; 0.1 leaves room for warm starts.
    growth: PerLayer = 100.0
    # Normal noise of a gradient norm is within a factor of 10, a hundredfold rise that lasts is not noise.
    min_share: PerLayer = 1e-3
    # A layer that grows a hundredfold and still has no part in the step comes out of vanishing.
    window: int = 100
    patience: int = 2
    # One high step is a spike; a run that explodes reaches NaN within a handful of steps.
    recovery: int = 5
    warmup: int = 20

    def __post_init__(self) -> None:
        self._check_limit("threshold", above=0)
        self._check_limit("calm_update", at_least=0)
        self._check_limit("growth", above=1)
        self._check_limit("min_share", at_least=0)
        self._check_window()
        super().__post_init__()

    def is_calm(self, history: History) -> bool:
        return self._update_ratio is history.update_ratio and self._baseline.is_under_ceiling(history)

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        norm = stats.grad_norm
        present = stats.has_grad & np.isfinite(norm)
        self._baseline.update(history, frozen=self._episodes["open"] | (self._episodes["bad_steps"] > 0))
        calm = history.update_ratio < self.limit("calm_update", stats.layers)
        absolute = np.where(calm, np.inf, self.limit("threshold", stats.layers))
        grown = np.fmax(self.limit("growth", stats.layers) * self._baseline["level"], self._baseline["peak"])
        self._baseline.ceiling, self._update_ratio = np.fmin(absolute, grown), history.update_ratio
        largest = np.max(norm, where=present, initial=0.0)
        limit = np.fmin(absolute, np.where(norm < self.limit("min_share", stats.layers) * largest, np.inf, grown))
        return Judgement(norm, limit, bad=present & (norm > limit), good=present & (norm < limit / 2))

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient norm {value:.3g} stayed above {threshold:.3g} for {self.patience} steps"

    def reset(self) -> None:
        super().reset()
        self._baseline = self._remembered["baseline"] = Baseline(self.window, self.warmup)
        self._update_ratio = np.empty(0)  # that of the history by which the ceiling was found; a new one is a new array
