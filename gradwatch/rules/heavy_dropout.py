"""HeavyDropout: so much is dropped that little is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.progress import LITTLE, NOTHING
from gradwatch.records import or_nan
from gradwatch.rules.base import Judgement
from gradwatch.rules.flagged import Flagged


@dataclass
class HeavyDropout(Flagged):
    """A dropout layer sets nearly all to zero, and little has been learned: a WARNING.

    What is left of a signal is random then. It becomes an ERROR once it is seen that nothing has been learned. It is
    seen at the sampled steps.

    Args:
        threshold: limit of the share that is dropped.
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc=[1.0])
        >>> history.progress.left, history.progress.of_classes = 0.9, True
        >>> history.append(replace(history.latest, step=1, dropped=0.95))
        >>> [alert.message for alert in HeavyDropout(patience=1).check(history)]
        ['a dropout layer sets 95% of what it is given to zero, and little has been learned']

    Source: Srivastava et al., JMLR 15, 2014, figure 9; UMLAUT (Schoop et al., CHI 2021) tells of high dropout rates.
    """

    name: ClassVar[str] = "heavy_dropout"
    looks_at: ClassVar[tuple[str, ...]] = ("dropped",)
    of_model: ClassVar[bool] = True

    threshold: float = 0.8
    # In the figure the error grows from 0.8 on; 0.5 is usual.
    patience: int = 2
    recovery: int = 1

    def __post_init__(self) -> None:
        check_number("HeavyDropout: threshold", self.threshold, above=0, at_most=1)
        super().__post_init__()

    def judge(self, history: History) -> Judgement:
        every = np.ones(len(history.layers))
        value = or_nan(history.now.dropped) * every
        known, little = np.isfinite(value), history.progress.is_none(but=LITTLE)
        bad = (value >= self.threshold) & little
        return Judgement(value, self.threshold * every, bad, known & ~bad, known=known, worsens=NOTHING)

    def describe(self, value: float, threshold: float) -> str:
        return f"a dropout layer sets {value:.0%} of what it is given to zero, and little has been learned"
