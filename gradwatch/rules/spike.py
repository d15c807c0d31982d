"""Spike: one step's gradient is far out of line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming, leading
from gradwatch.history import History
from gradwatch.patterns import PerLayer
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.baseline import Baseline
from gradwatch.rules.state import LayerState


@dataclass
class Spike(LayerRule):
    """A layer's gradient norm jumps far above its recent median and all that was normal before, and falls back.

    Both the jump and the fall are steep, within a few steps: a gradient that grows for good while a network wakes up
    is no spike, nor is a lasting rise, which is for :class:`~gradwatch.rules.Exploding`. So the alert comes with the
    first normal step after it, and names the step of the peak. The layers of one step make one alert. Layers that even
    then have next to nothing of the whole gradient do not count.

    Args:
        factor: limit of the norm, relative to the layer's median over the ``window`` steps before.
        z: limit of the robust z-score of the log norm; a noisy layer needs a higher jump.
        steepness: least ratio of the norm to that of the step before, and of the peak to the first step after.
        max_steps: steps that a spike may last.
        window: steps in the baseline.
        warmup: steps that a layer needs for its baseline.
        patience: spikes in a row before the alert.
        recovery: normal steps in a row before the next alert.

    ``factor``, ``z`` and ``steepness`` are a number, or a number per pattern of layer names: ``{"encoder.*": 30.0}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> for alert in Spike().check(History.from_grad_norms(fc=[1.0] * 30 + [50.0] + [1.0] * 5)):
        ...     print(alert.step, alert.message)
        30 fc: gradient norm 50 in one step, normal is up to 15

    Source: Leys et al., J. Exp. Soc. Psychol. 49, 2013, for the median absolute deviation as the measure of spread.
    """

    name: ClassVar[str] = "spike"
    severity: ClassVar[Severity] = Severity.WARNING
    reports_recovery: ClassVar[bool] = False

    factor: PerLayer = 15.0
    # Norms of healthy runs stay within a factor of 3 of their recent median; 15 leaves room for the few examples of an
    # epoch's last batch, of which those that are still wrong may be one.
    z: PerLayer = 6.0
    # Six robust standard deviations of the log norm: one false alarm in 1e9 steps if it were normal.
    steepness: PerLayer = 5.0
    # Attention that wakes up grows tenfold within 20 steps, but less than twofold in any one of them.
    max_steps: int = 5
    window: int = 100
    warmup: int = 20
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        self._check_limit("factor", above=1)
        self._check_limit("z", above=0)
        self._check_limit("steepness", at_least=1)
        self._check_steps("max_steps", at_least=1)
        self._check_window()
        super().__post_init__()

    def calm_steps(self, history: History, coming: Coming) -> int:
        calm = min(self._baseline.calm_steps(coming), leading(coming.largest < np.inf))
        if calm:
            alive = coming.grad_norm[:calm][::-1] > 0  # the last one first
            last = coming.grad_norm[:calm][::-1][np.argmax(alive, axis=0), np.arange(len(coming.layers))]
            self._burst["before"] = np.where(last > 0, last, self._burst["before"])
        return calm

    def judge(self, history: History) -> Judgement:
        stats = history.now
        norm, layers = stats.grad_norm, stats.layers
        present = stats.has_grad & np.isfinite(norm)
        base, burst = self._baseline, self._burst
        base.update(history, frozen=burst["steps"] > 0)
        noise = np.exp(np.minimum(self.limit("z", layers) * base["spread"], 700.0))
        jump = np.maximum(self.limit("factor", layers), noise)
        limit = np.maximum(jump * base["level"], BEYOND * base["peak"])
        steep = self.limit("steepness", layers)

        high = burst["steps"] > 0
        fallen = high & present & (norm * steep <= burst["peak"])
        starts = ~high & present & (norm > limit) & (norm >= steep * burst["before"])
        starts &= ~(norm < NEGLIGIBLE * stats.total_norm)
        higher = starts | (high & present & (norm > burst["peak"]))
        burst["limit"] = np.where(starts, limit, burst["limit"])
        burst["peak"] = np.where(higher, norm, burst["peak"])
        burst["at"] = np.where(higher, stats.step, burst["at"])
        lasted = np.where(starts, 1, np.where(high & ~fallen, burst["steps"] + 1, 0))
        burst["steps"] = np.where(lasted > self.max_steps, 0, lasted)
        burst["before"] = np.where(present & (norm > 0), norm, burst["before"])
        base.ceiling = None if burst["steps"].any() else limit
        return Judgement(burst["peak"], burst["limit"], bad=fallen, good=present & ~fallen, step=burst["at"])

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient norm {value:.3g} in one step, normal is up to {threshold:.3g}"

    def reset(self) -> None:
        super().reset()
        self._baseline = self._remembered["baseline"] = Baseline(self.window, self.warmup)
        self._burst = self._remembered["burst"] = LayerState(steps=0, at=0, peak=0.0, limit=0.0, before=np.inf)


NEGLIGIBLE = 1e-2
"""Share of the whole gradient up to which a layer throws nothing off, as one whose gradient has vanished."""

BEYOND = 2.0
"""Factor above all that was normal before: a noisy layer's largest norm is exceeded by a little again and again."""
