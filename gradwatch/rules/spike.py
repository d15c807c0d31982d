"""Spike: one step's gradient is far out of line."""

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
class Spike(LayerRule):
    """A layer's gradient norm jumps far above its recent median, and above what was normal at any time.

    A jump to what was normal when training began does no harm, and converged runs jump so all the time. The layers of
    one step make one alert. A spike is over with the next normal step and reports no recovery.

    Args:
        factor: limit of the norm, relative to the layer's median over the ``window`` steps before.
        z: limit of the robust z-score of the log norm; a noisy layer needs a higher jump.
        window: steps in the baseline.
        warmup: steps that a layer needs for its baseline.
        patience: steps in a row before the alert.
        recovery: normal steps in a row before the next alert.

    ``factor`` is a number, or a number per pattern of layer names: ``{"encoder.*": 30.0}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> for alert in Spike().check(History.from_grad_norms(fc=[1.0] * 30 + [50.0] + [1.0] * 5)):
        ...     print(alert.step, alert.message)
        30 fc: gradient norm 50 in one step, normal is up to 10

    Source: Leys et al., J. Exp. Soc. Psychol. 49, 2013, for the median absolute deviation as the measure of spread.
    """

    name: ClassVar[str] = "spike"
    severity: ClassVar[Severity] = Severity.WARNING
    grouped: ClassVar[bool] = True
    reports_recovery: ClassVar[bool] = False

    factor: PerLayer = 10.0
    # Norms of healthy runs stay within a factor of 3 of their recent median; 10 leaves room for small batches.
    z: PerLayer = 6.0
    # Six robust standard deviations of the log norm: one false alarm in 1e9 steps if it were normal.
    window: int = 100
    warmup: int = 20
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        self._check_limit("factor", above=1)
        self._check_limit("z", above=0)
        self._check_window()
        super().__post_init__()

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        norm = stats.grad_norm
        present = stats.has_grad & np.isfinite(norm)
        self._baseline.update(history)
        base = self._baseline
        jump = np.maximum(
            self.limit("factor", stats.layers),
            np.exp(np.minimum(self.limit("z", stats.layers) * base["spread"], 700.0)),
        )
        limit = np.maximum(jump * base["level"], base["peak"])
        return Judgement(norm, limit, bad=present & (norm > limit), good=present & (norm <= limit))

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient norm {value:.3g} in one step, normal is up to {threshold:.3g}"

    def reset(self) -> None:
        super().reset()
        self._baseline = self._remembered["baseline"] = Baseline(self.window, self.warmup)
