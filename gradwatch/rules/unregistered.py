"""Unregistered: the model uses layers that it does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.progress import LITTLE
from gradwatch.records import or_nan
from gradwatch.rules.base import Judgement, last_layer
from gradwatch.rules.flagged import Flagged


@dataclass
class Unregistered(Flagged):
    """The model's output depends on parameters that are not among its own, and that no optimizer trains: a WARNING.

    So it is with layers in a Python list or dict: ``model.parameters()`` does not know them, so the optimizer does not
    either, they stay as they began, and no file of the model has them. It becomes an ERROR once it is seen that nothing
    has been learned, or little and it stands still. It is seen at the first steps and at the sampled ones, where the
    optimizer is known. What another optimizer writes to, of which nothing is known, is none of it.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(head=[1.0])
        >>> history.append(replace(history.latest, step=1, unregistered=8320))
        >>> [alert.message for alert in Unregistered(patience=1).check(history)]
        ['head: the model uses 8,320 weights that are not its own parameters, and no optimizer trains them']

    Source: torch.nn.ModuleList.
    """

    name: ClassVar[str] = "unregistered"
    looks_at: ClassVar[tuple[str, ...]] = ("unregistered",)

    patience: int = 10
    # Of the 14 looks that a run begins with and that can tell: another optimizer may step once in five or ten steps.
    recovery: int = 1

    def judge(self, history: History) -> Judgement:
        stats = history.now
        last, number = last_layer(stats), or_nan(stats.unregistered)
        of_all = np.full(len(last), number), np.zeros(len(last))
        known = last & np.isfinite(number)
        return Judgement(*of_all, known & (number > 0), known & (number == 0), known=known, worsens=LITTLE)

    def describe(self, value: float, threshold: float) -> str:
        return f"the model uses {value:,.0f} weights that are not its own parameters, and no optimizer trains them"
