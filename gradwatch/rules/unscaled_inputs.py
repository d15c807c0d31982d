"""UnscaledInputs: data in units in which their numbers are large, or tiny, of which little is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import PerLayer
from gradwatch.progress import LITTLE, NOTHING
from gradwatch.records import BoolArray, FloatArray, Severity, StepStats, or_nan
from gradwatch.rules.base import Judgement, of_layers
from gradwatch.rules.flagged import Flagged
from gradwatch.rules.state import LayerState, ModelState


@dataclass
class UnscaledInputs(Flagged):
    """A layer is given data far larger than 1, or next to nothing, and little has been learned: a WARNING.

    The curvature of the loss grows with the square of the inputs, and so much faster along large features than along
    small ones that those are not learned. Networks that learn from such data all the same are none of it, nor are
    layers with a normalisation right behind. Where nothing was ever learned it becomes an ERROR, of tiny data at once;
    but those whose first steps throw the weights off are for :class:`~gradwatch.rules.Exploding` and
    :class:`~gradwatch.rules.UpdateRatio`, which tell of them earlier. It is seen at the sampled steps.

    Args:
        threshold: limit of the root mean square.
        least: the least one; elements of exactly zero do not count.
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    ``threshold`` and ``least`` are a number, or a number per pattern of layer names: ``{"encoder.*": 300.0}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0], out=[1.0])
        >>> history.progress.left, history.progress.of_classes = 0.9, True
        >>> history.append(replace(history.latest, step=1, data_rms=np.array([211.0, np.nan])))
        >>> [alert.message for alert in UnscaledInputs(patience=1).check(history)]
        ['fc: the data have a root mean square of 211, standardised ones have 1, and little has been learned']

    Source: LeCun et al., Efficient BackProp, 1998, section 4.3.
    """

    name: ClassVar[str] = "unscaled_inputs"
    looks_at: ClassVar[tuple[str, ...]] = ("data_rms",)

    threshold: PerLayer = 10.0
    # Standardised features have 1, counts and unscaled measurements from 10 on; pixels from 0 to 255 about 100.
    least: PerLayer = 3e-3
    # Pixels that are divided by 255 twice have 2e-3; elements of zero, as of words that a text has not, do not count.
    patience: int = 2
    recovery: int = 1

    def __post_init__(self) -> None:
        self._check_limit("threshold", above=0)
        self._check_limit("least", at_least=0)
        super().__post_init__()

    def look(self, history: History) -> None:
        """For how many looks in a row each layer's data are out of range."""
        rms, _, out = self._range(history.now)
        self._out["looks"] = np.where(np.isnan(rms), 1, out) * (self._out["looks"] + out)
        self._run["thrown"] |= or_nan(history.now.total_update) > THROWN

    def judge(self, history: History) -> Judgement:
        rms, limit, out = self._range(history.now)
        bad, known = out & history.progress.is_none(but=LITTLE), np.isfinite(rms) & (rms > 0)
        nothing = history.progress.is_none(but=NOTHING) and not self._run["thrown"]
        never = bad & nothing & (self._out["looks"] > self.patience)
        self._episodes.hasten(never, self.patience - 1)
        fatal = never & (rms < 1)  # of large data small steps may learn yet
        severity = Severity.ERROR if fatal.any() else None
        worsens = NOTHING * (nothing and history.progress.stands_still(but=NOTHING))
        return Judgement(rms, limit, bad, known & ~bad, known=known, severity=severity, certain=fatal, worsens=worsens)

    def reset(self) -> None:
        super().reset()
        self._out = self._remembered["out"] = LayerState(looks=0)
        self._run = self._remembered["run"] = ModelState(thrown=False)

    def _range(self, stats: StepStats) -> tuple[FloatArray, FloatArray, BoolArray]:
        """The root mean square of each layer's data, the limit it is held against, and whether it is beyond that."""
        rms, least = of_layers(stats.data_rms, stats), self.limit("least", stats.layers)
        limit = np.where(rms < least, least, self.limit("threshold", stats.layers))
        return rms, limit, (rms > 0) & (rms < np.inf) & ((rms < least) | (rms > limit))

    def describe(self, value: float, threshold: float) -> str:
        return f"the data have a root mean square of {value:.3g}, standardised ones have 1, and little has been learned"


THROWN = 0.1
"""``|step| / |parameters|`` by which the weights are no more what they were initialised to."""
