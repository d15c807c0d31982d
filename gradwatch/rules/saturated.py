"""Saturated: the activation behind a layer is where it has next to no derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.patterns import PerLayer
from gradwatch.progress import LITTLE, NOTHING
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, LayerRule, last_layer, of_layers
from gradwatch.rules.state import LayerState


@dataclass
class Saturated(LayerRule):
    """Most outputs of the sigmoid or tanh behind a layer are so far out that no gradient passes.

    It is seen at the first steps and at the sampled ones, of activations that are modules. In other layers from the
    start it is an ERROR: the weights or the inputs are too large. In the first one alone it is a WARNING, since the
    layers behind it may learn from what it says; so it is later, since gates may close as they learn, and where an
    earlier look found none, as an optimizer may fit separable data within a few steps. Where nothing is learned from
    then on it becomes an ERROR, and where much was learned before it is none. Behind the last layer it is none either:
    outputs of 0 or 1 are what is asked for.

    Args:
        share: limit of the share of outputs whose derivative is below 5% of its largest.
        patience: looks in a row before the alert.
        recovery: looks in a row below the limit before the episode is over.

    ``share`` is a number, or a number per pattern of layer names: ``{"gate.*": 0.9}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc1=[1.0], fc2=[1.0])
        >>> rule = Saturated(patience=1)
        >>> history.append(replace(history.latest, step=1, saturated=np.array([0.9, np.nan])))
        >>> [alert.message for alert in rule.check(history)]
        ['fc1: 90% of the outputs of its activation are saturated']

    Source: Glorot and Bengio, AISTATS 2010, section 3; DeepDiagnosis (Wardat et al., ICSE 2022) asks for half of a
    layer.
    """

    name: ClassVar[str] = "saturated"
    severity: ClassVar[Severity] = Severity.ERROR
    follows: ClassVar[tuple[str, ...]] = ("loss_mismatch", "not_zeroed", "exploding", "update_ratio")
    quantity: ClassVar[str] = "share of saturated outputs"
    by_looks: ClassVar[bool] = True
    looks_at: ClassVar[tuple[str, ...]] = ("saturated",)

    share: PerLayer = 0.5
    patience: int = 4
    recovery: int = 2

    def __post_init__(self) -> None:
        self._check_limit("share", above=0, at_most=1)
        super().__post_init__()

    def look(self, history: History) -> None:
        """Which layers a close look has found within the limit."""
        stats = history.now
        if stats.saturated is not None:
            self._fine["ever"] |= stats.saturated <= self.limit("share", stats.layers)

    def judge(self, history: History) -> Judgement:
        stats = history.now
        found = of_layers(stats.saturated, stats).copy()
        found[last_layer(stats)] = np.nan
        limit = self.limit("share", stats.layers)
        known = ~np.isnan(found)
        bad = known & (found > limit)
        late, left = history.count > EARLY, history.progress.left
        if late and left < (LITTLE if history.progress.of_classes else SOLVED):  # it does what it should
            bad &= self._episodes["open"]
        opens = bad & ~self._episodes["open"] & (self._episodes["bad_steps"] >= self.patience - 1)
        behind_may = bad.sum() == 1 and not stats.has_grad[: np.argmax(bad)].any()
        may_learn = late or behind_may or self._fine["ever"][opens].all()
        severity = Severity.WARNING if may_learn else None
        return Judgement(found, limit, bad, good=known & ~bad, known=known, severity=severity, worsens=NOTHING)

    def reset(self) -> None:
        super().reset()
        self._fine = self._remembered["fine"] = LayerState(ever=False)

    def describe(self, value: float, threshold: float) -> str:
        return f"{value:.0%} of the outputs of its activation are saturated"


SOLVED = 0.3
"""Share of the first gradient at the outputs that is left where much was learned, whatever the loss."""
