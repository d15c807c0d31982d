"""Underflow: gradients are too small for float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.records import BoolArray, FloatArray, Severity, StepStats
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import ModelState
from gradwatch.tags import HISTOGRAM_EDGES

NORMAL = 2.0**-14
"""The least number that float16 has with all its digits."""

LEAST = 2.0**-24
"""The least number that it has at all: what is below half of it is 0."""


@dataclass
class Underflow(LayerRule):
    """In float16, the gradients of most layers are 0, or of the few numbers just above it.

    What is below 3e-8 is 0 in float16, and what is below 6e-5 loses its digits. A loss scale takes gradients out of
    there, and their unscaled values then leave no gap above 0; so it is looked for at sampled steps, by the histogram.
    Where every gradient is exactly 0 from the first step on, it is known by what the layers computed in.

    Args:
        share: limit of the share of layers.
        warmup: steps at the start in which zeros are no sign: branches initialised to zero come alive there.
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> history = History.from_grad_norms(fc1=[0.0] * 9, fc2=[0.0] * 9)
        >>> history.half = True
        >>> for alert in Underflow().check(history):
        ...     print(alert.step, alert.message)
        5 fc2, fc1: gradient norm 0; float16 has nothing between 0 and 6e-08: use a GradScaler

    Source: Micikevicius et al., ICLR 2018, section 3.2.
    """

    name: ClassVar[str] = "underflow"
    looks_at: ClassVar[tuple[str, ...]] = ("half",)
    severity: ClassVar[Severity] = Severity.ERROR

    share: float = 0.5
    warmup: int = 5
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        check_number("Underflow: share", self.share, above=0, at_most=1)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def calm_steps(self, history: History, coming: Coming) -> int:
        self._run["lived"] |= coming.largest[0] > 0
        return len(coming) if self._run["lived"] else 0

    def judge(self, history: History) -> Judgement:
        stats = history.now
        self._run["lived"] |= stats.norm_range[1] > 0
        zero = stats.has_grad & (stats.grad_norm == 0) & (history.count > self.warmup)
        nothing = zero & history.half & (not self._run["lived"])
        half = stats.has_grad & bool(stats.half)
        lost = half & (zero | _without_digits(stats))
        most = lost.sum() > self.share * stats.has_grad.sum()
        limit = np.full(len(lost), LEAST)
        bad = nothing | (lost & most)
        good = (stats.grad_norm > 0) & ~bad & (stats.histogram is not None)  # between sampled steps nobody can tell
        return Judgement(stats.grad_norm, limit, bad, good, known=bad | good)

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient norm {value:.3g}; float16 has nothing between 0 and {threshold:.0e}: use a GradScaler"

    def reset(self) -> None:
        super().reset()
        self._run = self._remembered["run"] = ModelState(lived=False)


def _without_digits(stats: StepStats) -> BoolArray:
    """bool [L], the layers with zeros and no number below what float16 has, nor any that it has with all digits."""
    if stats.histogram is None or stats.max_abs is None or stats.zero_fraction is None:
        return np.zeros(len(stats.layers), bool)
    low: FloatArray = np.append(10.0 ** HISTOGRAM_EDGES[:-1], np.inf)
    filled = stats.histogram > 0
    least = low[np.where(filled.any(axis=1), filled.argmax(axis=1), len(low) - 1)]
    return (stats.max_abs < NORMAL) & (stats.zero_fraction > 0) & (least > LEAST / 2)
