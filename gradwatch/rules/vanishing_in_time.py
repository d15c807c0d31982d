"""VanishingInTime: no gradient reaches the early time steps of a recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.patterns import PerLayer
from gradwatch.records import BoolArray, FloatArray, Severity, StepStats
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import LayerState, ModelState


@dataclass
class VanishingInTime(LayerRule):
    """The gradient that reaches the first quarter of a recurrent layer's time steps is next to nothing.

    The weights are shared by all time steps, so their gradients look normal: the late time steps provide them, and what
    came early in a sequence cannot be learned. It is seen at the first steps and at the sampled ones. A layer as it is
    freshly made forgets too, and learns to remember within a hundred steps where something calls for it; so at first
    only what forgets faster than that counts. Later, which one look tells, it counts where nothing has been learned: a
    forecast from the last few values does well without the early ones, and its gradient is no longer what it was.

    Args:
        first_ratio: limit of the largest gradient among the early time steps, relative to the largest of all, at the
            first steps.
        first_gain: limit of what is left of the gradient per time step, at the first steps.
        ratio: as ``first_ratio`` later on.
        gain: as ``first_gain`` later on.
        patience: looks in a row before the alert.
        recovery: looks in a row beyond the limits before the episode is over.

    Each limit is a number, or a number per pattern of layer names: ``{"encoder": 1e-8}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(rnn=[1.0], head=[1.0])
        >>> ratio, gain = np.array([1e-9, np.nan]), np.array([0.2, np.nan])
        >>> history.append(replace(history.latest, step=1, time_ratio=ratio, time_gain=gain))
        >>> [alert.message for alert in VanishingInTime(patience=1).check(history)]
        ['rnn: the first quarter of the time steps gets 1e-09 of the gradient that the last ones get']

    Source: Bengio, Simard and Frasconi, IEEE Trans. Neural Networks 5, 1994; Pascanu, Mikolov and Bengio, ICML 2013.
    """

    name: ClassVar[str] = "vanishing_in_time"
    severity: ClassVar[Severity] = Severity.ERROR
    quantity: ClassVar[str] = "share of the gradient"

    first_ratio: PerLayer = 1e-4
    # Networks that learn what came 20 to 30 time steps ago have 0.01 and more from the start, in docs/detection.md.
    first_gain: PerLayer = 0.33
    # PyTorch's RNN has 0.4 to 0.55 as it is initialised, LSTM and GRU 0.6; they forget half at each time step.
    ratio: PerLayer = 3e-3
    # After a hundred steps those of docs/detection.md that learn have 0.02 and more; what needs no memory has less.
    gain: PerLayer = 0.8
    # Those that have learned a label of 100 to 200 time steps keep 0.85 or more.
    patience: int = 2
    recovery: int = 2

    def __post_init__(self) -> None:
        for argument in ("first_ratio", "first_gain", "ratio", "gain"):
            self._check_limit(argument, above=0, at_most=1)
        super().__post_init__()

    def look(self, history: History) -> None:
        """For how many looks each layer has been below the later limits, and how large the first gradients are."""
        stats, forgets = history.latest, self._forgets
        assert stats is not None
        if history.count == FIRST:
            self._first["norm"] = _median_norm(history, FIRST)
        forgets.align(stats.layers)
        if stats.time_ratio is not None:
            bad, _ = self._below(stats)
            forgets["looks"] = np.where(
                bad, forgets["looks"] + 1, np.where(np.isnan(stats.time_ratio), forgets["looks"], 0)
            )

    def is_calm(self, history: History) -> bool:
        assert history.latest is not None
        ratio = history.latest.time_ratio
        return ratio is None or not np.logical_or.reduce(ratio < max(map(self.highest, ("first_ratio", "ratio"))))

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        ratio = np.full(len(stats.layers), np.nan) if stats.time_ratio is None else stats.time_ratio
        bad, limit = self._below(stats, "first_" if history.count <= EARLY else "")
        if history.count > EARLY:  # the first looks count as well, where they were no better
            first, now = self._first["norm"], _median_norm(history, LATEST)
            bad &= not (now < UNCHANGED[0] * first or now > UNCHANGED[1] * first)
            self._episodes.hasten(bad, np.fmin(self._forgets["looks"], self.patience) - 1)
        known = ~np.isnan(ratio)
        return Judgement(ratio, limit, bad, good=known & ~bad, known=known)

    def reset(self) -> None:
        super().reset()
        self._forgets = self._remembered["forgets"] = LayerState(looks=0)
        self._first = self._remembered["first"] = ModelState(norm=np.nan)

    def _below(self, stats: StepStats, when: str = "") -> tuple[BoolArray, FloatArray]:
        """Which layers are below both limits, bool [L], and that of the ratio, float64 [L]."""
        limit = self.limit(f"{when}ratio", stats.layers)
        if stats.time_ratio is None or stats.time_gain is None:
            return np.zeros(len(limit), bool), limit
        return (stats.time_ratio < limit) & (stats.time_gain < self.limit(f"{when}gain", stats.layers)), limit

    def describe(self, value: float, threshold: float) -> str:
        return f"the first quarter of the time steps gets {value:.3g} of the gradient that the last ones get"


FIRST, LATEST = 3, 20
"""Steps over which the total norm is taken at the start of the run, and at a later look."""

UNCHANGED = 0.5, 1.25
"""Between which times what it was at first the total norm is where nothing was learned: it falls with the loss, and
grows where the layer has found something to learn from."""


def _median_norm(history: History, steps: int) -> float:
    """Of the total norm over the latest steps that are finite; NaN of none."""
    norms = history.total_norm[-steps:]
    known = norms[np.isfinite(norms)]
    return float(np.median(known)) if len(known) else np.nan
