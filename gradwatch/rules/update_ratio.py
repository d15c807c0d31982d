"""UpdateRatio: a step moves the weights by as much as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.patterns import PerLayer, check_number
from gradwatch.records import FloatArray, Severity
from gradwatch.rules.base import Judgement, LayerRule, goes_through_time, is_shallow, of_layers, share_of
from gradwatch.rules.state import ModelState


@dataclass
class UpdateRatio(LayerRule):
    """A step changes the weights by too much or too little of their size.

    Too much is asked of the whole model first: a single layer that begins at zero may well move by more than its size.
    The ratio is measured at each of the first steps and at the sampled ones (``histogram_every_n_steps``), and
    ``patience`` and ``recovery`` count those measurements. Where there is a single layer to train, as in linear
    regression, it must happen three times in a row while the gradient grows. Nothing is measured where the monitor
    knows that the optimizer is LBFGS, which takes many steps in one.

    At the start a step that is too large is a WARNING, and one half as large again as the first an ERROR: RMSprop,
    which begins with 10 times its learning rate, Adagrad and Adam take ever smaller ones, and many of the networks that
    RMSprop throws off so settle.

    Args:
        high: upper limit of ``|step| / |weights|``, of all layers together and of each that is named.
        again: the same for the second of the first steps that exceeds it, in a network of at least four layers, where
            the changes of all layers multiply, or with a recurrent layer that goes one way, whose change
            multiplies at each time step.
        path: upper limit of what the first steps add up to, in a network that has learned nothing since, or little and
            stands still (:class:`~gradwatch.progress.Progress`).
        lasting: upper limit of later steps in such a network.
        low: lower limit of each layer, 0 for none: a learning rate that warms up from zero is below any for a while.
        patience: measurements in a row before the alert.
        recovery: measurements in a row within the range before the episode is over.

    ``high`` and ``low`` are a number, or a number per pattern of layer names: ``{"embedding": 1.0}``.

    Raises:
        ValueError: when an argument is out of range, or ``low`` is not below ``high``.
        TypeError: when it is not a number.

    Example:
        >>> history = History.from_grad_norms(fc=[1.0], out=[1.0])
        >>> from dataclasses import replace
        >>> for step in (1, 2):
        ...     history.append(replace(history.latest, step=step, update_ratio=np.array([0.9, 1e-3])))
        >>> for alert in UpdateRatio().check(history):
        ...     print(alert.message)
        fc: a step changed the weights by 90% of their size

    Source: the ratio of update to weights, about 1e-3 in healthy training, is from Karpathy's CS231n notes; SageMaker
    Debugger's WeightUpdateRatio, whose range is 1e-8 to 10, judges each tensor.
    """

    name: ClassVar[str] = "update_ratio"
    severity: ClassVar[Severity] = Severity.ERROR
    others_follow: ClassVar[Severity] = Severity.WARNING  # it may settle, and what it has done is done
    follows: ClassVar[tuple[str, ...]] = ("loss_mismatch", "not_zeroed", "overflow", "exploding", "unstable")
    quantity: ClassVar[str] = "update ratio"
    by_looks: ClassVar[bool] = True
    looks_at: ClassVar[tuple[str, ...]] = ("update_ratio",)

    high: PerLayer = 0.6
    # Half of the weights' size is what RMSprop and Adagrad may begin with; more forgets what they were initialised to.
    again: PerLayer = 0.15
    # The first steps of healthy networks of that kind in docs/detection.md stay below 0.1, or one of them is 0.12.
    low: PerLayer = 0.0
    path: float = 0.8
    # Of the healthy networks of docs/detection.md that learn slowly none has more than 0.66, of faulty ones 1 to 5.
    lasting: float = 0.04
    # Between 0.036 and 0.045 in those; the steps of large networks with BatchNorm may be 0.01.
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        self._check_limit("high", above=0)
        self._check_limit("again", above=0)
        self._check_limit("low", at_least=0)
        for argument in ("path", "lasting"):
            check_number(f"UpdateRatio: {argument}", getattr(self, argument), above=0)
        super().__post_init__()
        if not isinstance(self.high, Mapping) and not isinstance(self.low, Mapping) and self.low >= self.high:
            raise ValueError(f"UpdateRatio: low={self.low!r} must be below high={self.high!r}")

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise ValueError also when a layer's lower limit is not below its upper one."""
        super().check_layers(names)
        low, high = self.limit("low", tuple(names)), self.limit("high", tuple(names))
        for i in np.flatnonzero(low >= high)[:1]:
            raise ValueError(f"UpdateRatio: low={low[i]:g} must be below high={high[i]:g}, for {names[i]!r}")

    def look(self, history: History) -> None:
        """How far the first steps have gone, all of them together."""
        if history.count <= EARLY:
            self._row["path"] += min(np.nan_to_num(history.total_update[-1]), ENDLESS)

    def judge(self, history: History) -> Judgement:
        stats = history.now
        ratio = of_layers(stats.update_ratio, stats)
        high, low = self.limit("high", stats.layers), self.limit("low", stats.layers)
        known = ~np.isnan(ratio)
        of_all = np.inf if stats.total_update is None else stats.total_update
        if self._again(history):
            high = np.fmin(high, self.limit("again", stats.layers))
        large = (ratio > high) & ((of_all > high) | np.isnan(of_all))
        if known.any():
            self._row["steps"] = self._row["steps"] + 1 if large.any() else 0
        grows = history.total_norm[-1] > 1.5 * history.total_norm[-4:][0]
        too_much = large & (not is_shallow(stats) or bool(self._row["steps"] >= 3 and grows))
        if history.count > EARLY and known.any() and not is_shallow(stats):
            for_nothing = self._for_nothing(history, ratio)
            if for_nothing is not None:
                return for_nothing
        bad = known & (too_much | (ratio < low))
        measured = history.total_update[np.isfinite(history.total_update)]
        early = history.count <= EARLY and too_much.any() and np.isfinite(of_all)
        may_settle = early and not (GROWS * measured[:1] < of_all).any()
        return Judgement(
            ratio,
            np.where(ratio < low, low, high),
            bad,
            good=known & ~bad & ~large,
            known=known,
            severity=Severity.WARNING if may_settle else None,
            certain=bad & (not may_settle),
        )

    def reset(self) -> None:
        super().reset()
        self._row = self._remembered["row"] = ModelState(steps=0, large=0, path=0.0)

    def _for_nothing(self, history: History, ratio: FloatArray) -> Judgement | None:
        """Steps by which the weights went so far, or still go, that little could be learned."""
        went, step, progress = self._row["path"], float(history.total_update[-1]), history.progress
        if not progress.is_none(but=LITTLE) or progress.was_learned(but=LITTLE):
            return None
        if not (went > self.path or (self.lasting < step < np.inf and not _wakes_up(history))):
            return None
        what, value, limit = "a step", step, self.lasting
        if went > self.path:
            what, value, limit = "the first steps together", went, self.path
        says = f"{what} changed the weights by {share_of(value)} their size, and {progress.in_words}"
        known, every = ~np.isnan(ratio), np.ones(len(ratio))
        return Judgement(value * every, limit * every, known, good=~known, known=known, certain=known, says=says)

    def _again(self, history: History) -> bool:
        """Whether this is one of the first steps, and not the first of them that is large for a deep network."""
        stats = history.now
        is_deep = np.count_nonzero(stats.has_grad) >= DEEP or goes_through_time(stats)
        if history.count > EARLY or stats.update_ratio is None or not is_deep:
            return False
        large = (stats.total_update or 0.0) > self.limit("again", stats.layers).max()
        self._row["large"] += large
        return bool(large and self._row["large"] > 1)

    def describe(self, value: float, threshold: float) -> str:
        if value < threshold:
            return f"a step changed the weights by only {value:.2g} of their size"
        return f"a step changed the weights by {share_of(value)} their size"


ENDLESS = 1e9
"""A step that no sum of others comes near."""

GROWS = 1.5
"""A step that is larger than the first one by so much is no start that settles. Those of RMSprop, whose mean of squares
has seen two gradients, stray by less."""

WAKES = 3.0
"""How far a gradient norm strays from the usual one; what is beyond makes no usual step."""

LATELY = 200
"""Steps whose median is the usual one: a plateau is left within a hundred."""

DEEP = 4
"""Layers from which the changes of all of them multiply (Bernstein et al., NeurIPS 2020)."""

LITTLE = 0.87
"""Share of the outputs' error that is left where little has been learned."""


def _wakes_up(history: History) -> bool:
    """Whether the gradient that made the latest step was far beyond the usual one, as where a plateau is left."""
    recent = history.total_norm[-LATELY:]
    return bool((recent[-2:-1] > WAKES * np.median(recent[np.isfinite(recent)])).any())
