"""VanishingInTime: no gradient reaches the early time steps of a recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.patterns import PerLayer, check_number
from gradwatch.records import BoolArray, Severity, StepStats
from gradwatch.rules.base import Judgement, LayerRule, of_layers
from gradwatch.rules.state import LayerState


@dataclass
class VanishingInTime(LayerRule):
    """The gradient that reaches the first quarter of a recurrent layer's time steps is next to nothing.

    The weights are shared by all time steps, so their gradients look normal: the late time steps provide them, and what
    came early in a sequence cannot be learned. It is seen at the first steps and at the sampled ones. A layer as it is
    freshly made forgets too, and learns to remember within a few hundred steps where something calls for it; so at
    first only what forgets faster than that counts. Later it counts where nothing has been learned: a forecast from the
    last few values does well without the early ones. That is told by what the loss asks of the outputs
    (:class:`~gradwatch.progress.Progress`). Where little has been learned, as what the late time steps alone can tell,
    it counts of a layer that forgets faster than a fresh one, at one look where the first were no better, and of any
    that forgets while the error stands still. A classification that is mostly noise is told as well: nothing in a
    network says that there was no more to learn.

    Args:
        first_ratio: limit of the largest gradient among the early time steps, relative to the largest of all, at the
            first steps.
        first_gain: limit of what is left of the gradient per time step, at the first steps.
        ratio: as ``first_ratio`` later on.
        gain: as ``first_gain`` later on, where nothing has been learned.
        fresh_gain: what a fresh layer has, the limit where little has been learned.
        nothing: limit of the share of the outputs' error that is left, above which nothing has been learned.
        little: the same for little.
        patience: looks in a row before the alert.
        recovery: looks in a row beyond the limits before the episode is over.

    Each limit of a ratio or gain is a number, or a number per pattern of layer names: ``{"encoder": 1e-8}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(rnn=[1.0], head=[1.0])
        >>> ratio, gain = np.array([1e-9, np.nan]), np.array([0.2, np.nan])
        >>> history.append(replace(history.latest, step=1, time_ratio=ratio, time_gain=gain))
        >>> [alert.message for alert in VanishingInTime(patience=1).check(history)]
        ['rnn: the first quarter of the time steps gets at most 1e-09 of the largest gradient at any time step']

    Source: Bengio, Simard and Frasconi, IEEE Trans. Neural Networks 5, 1994; Pascanu, Mikolov and Bengio, ICML 2013.
    """

    name: ClassVar[str] = "vanishing_in_time"
    severity: ClassVar[Severity] = Severity.ERROR
    follows: ClassVar[tuple[str, ...]] = ("not_zeroed", "exploding", "update_ratio", "saturated", "dead")
    quantity: ClassVar[str] = "share of the gradient"
    by_looks: ClassVar[bool] = True
    looks_at: ClassVar[tuple[str, ...]] = ("time_ratio",)

    first_ratio: PerLayer = 1e-4
    # Networks that learn what came 20 to 30 time steps ago have 0.01 and more from the start, in docs/detection.md.
    first_gain: PerLayer = 0.33
    # PyTorch's RNN has 0.4 to 0.55 as it is initialised, LSTM and GRU 0.6; they forget half at each time step.
    ratio: PerLayer = 1e-2
    # Under the noise of the late time steps, what is a hundredth of it takes some ten thousand steps to show.
    gain: PerLayer = 0.8
    # Those that have learned a label of 100 to 200 time steps keep 0.85 or more.
    fresh_gain: PerLayer = 0.5
    # As PyTorch makes them, a gate keeps sigmoid(0) = 0.5 of an LSTM's or GRU's state, and uniform weights of an RNN
    # have a spectral radius of 1 / sqrt(3) = 0.58.
    nothing: float = 0.9
    # Of squared error and cross entropy alike: what learns nothing stays above it in docs/detection.md, what the late
    # time steps suffice for falls below 0.7 in a hundred steps.
    little: float = 0.7
    # Less than half of the squared error has gone: 0.7 is sqrt(0.5).
    patience: int = 2
    recovery: int = 2

    def __post_init__(self) -> None:
        for argument in ("first_ratio", "first_gain", "ratio", "gain", "fresh_gain"):
            self._check_limit(argument, above=0, at_most=1)
        for argument in ("nothing", "little"):
            check_number(f"VanishingInTime: {argument}", getattr(self, argument), above=0)
        super().__post_init__()

    def look(self, history: History) -> None:
        """For how many looks each layer has forgotten."""
        stats, forgets = history.now, self._forgets
        if stats.time_ratio is not None:
            bad = self._forgets_at(stats, "ratio", "gain")
            forgets["looks"] = np.where(
                bad, forgets["looks"] + 1, np.where(np.isnan(stats.time_ratio), forgets["looks"], 0)
            )

    def judge(self, history: History) -> Judgement:
        stats = history.now
        ratio = of_layers(stats.time_ratio, stats)
        known = ~np.isnan(ratio)
        if history.count <= EARLY:
            bad, limit = self._forgets_at(stats, "first_ratio", "first_gain"), self.limit("first_ratio", stats.layers)
        else:
            limit, progress = self.limit("ratio", stats.layers), history.progress
            forgets, faster = (self._forgets_at(stats, "ratio", gain) for gain in ("gain", "fresh_gain"))
            faster &= progress.is_none(but=self.little)
            still = forgets & progress.stands_still(but=self.little)  # seen at two looks
            self._episodes.hasten(faster, np.fmin(self._forgets["looks"], self.patience) - 1)
            self._episodes.hasten(still, self.patience - 1)
            bad = faster | still | (forgets & progress.is_none(but=self.nothing))
        return Judgement(ratio, limit, bad, good=known & ~bad, known=known)

    def reset(self) -> None:
        super().reset()
        self._forgets = self._remembered["forgets"] = LayerState(looks=0)

    def _forgets_at(self, stats: StepStats, ratio: str, gain: str) -> BoolArray:
        """Which layers are below both limits, bool [L]."""
        if stats.time_ratio is None or stats.time_gain is None:
            return np.zeros(len(stats.layers), bool)
        low = stats.time_ratio < self.limit(ratio, stats.layers)
        return low & (stats.time_gain < self.limit(gain, stats.layers))

    def describe(self, value: float, threshold: float) -> str:
        return f"the first quarter of the time steps gets at most {value:.3g} of the largest gradient at any time step"
