"""Shrinking: the weights have shrunk to a small part of what they began with, and nothing has been learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import PerLayer
from gradwatch.progress import NOTHING
from gradwatch.records import Severity
from gradwatch.rules.base import Judgement, of_layers
from gradwatch.rules.flagged import Flagged


@dataclass
class Shrinking(Flagged):
    """Most layers have lost most of the size that their parameters began with, while nothing was learned: an ERROR.

    So it is where weight decay, or a penalty in the loss, takes more of the weights than the gradient gives them. An
    optimizer that adapts its steps keeps every layer's gradient going meanwhile, so that none vanishes. It is seen at
    the steps whose parameters are measured (``histogram_every_n_steps``).

    Args:
        threshold: limit of what is left, relative to the first step.
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    ``threshold`` is a number, or a number per pattern of layer names: ``{"encoder.*": 0.1}``.

    Raises:
        ValueError: when ``threshold`` is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history, now = History(), History.from_grad_norms(fc=[1.0]).latest
        >>> history.progress.left, history.progress.of_classes = 1.0, True
        >>> for step, norm in ((0, 8.0), (100, 0.4)):
        ...     history.append(replace(now, step=step, param_norm=np.array([norm])))
        >>> [alert.message for alert in Shrinking().check(history)]
        ['fc: parameters have shrunk to 0.05 of what they began with, and nothing has been learned']

    Source: Krogh and Hertz, NeurIPS 1991: weight decay multiplies weights by 1 - lr * decay at every step.
    """

    name: ClassVar[str] = "shrinking"
    severity: ClassVar[Severity] = Severity.ERROR
    looks_at: ClassVar[tuple[str, ...]] = ("param_norm",)
    follows: ClassVar[tuple[str, ...]] = ("not_zeroed", "exploding", "update_ratio", "unstable", "vanishing")

    threshold: PerLayer = 0.3
    # A decay of 1e-2 at a learning rate of 1e-3 takes a thousandth in a hundred steps; what learns keeps its size.
    patience: int = 1
    recovery: int = 1

    def __post_init__(self) -> None:
        self._check_limit("threshold", above=0, at_most=1)
        super().__post_init__()

    def judge(self, history: History) -> Judgement:
        stats, first = history.now, history.first
        began = np.full(len(stats.layers), np.nan)
        if first is not None and first.layers == stats.layers:
            began = of_layers(first.param_norm, first)
        left = of_layers(stats.param_norm, stats) / np.where(began > 0, began, np.nan)
        limit, known = self.limit("threshold", stats.layers), np.isfinite(left)
        shrunk = left < limit
        most = 2 * np.count_nonzero(shrunk) > np.count_nonzero(known)
        bad = shrunk & (most and history.progress.is_none(but=NOTHING))
        return Judgement(left, limit, bad, known & ~bad, known=known)

    def describe(self, value: float, threshold: float) -> str:
        return f"parameters have shrunk to {value:.2g} of what they began with, and nothing has been learned"
