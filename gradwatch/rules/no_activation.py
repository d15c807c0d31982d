"""NoActivation: nothing between the layers of a network bends, so that all of them compute what one would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.progress import LITTLE
from gradwatch.records import StepStats
from gradwatch.rules.base import Judgement
from gradwatch.rules.flagged import Flagged
from gradwatch.rules.state import LayerState


@dataclass
class NoActivation(Flagged):
    """Layers with weights follow each other without an activation anywhere: a linear map of a linear map is one.

    It is seen at the probed step, see :func:`~gradwatch.stacked.stacked_weights`, and is a WARNING, since a linear map
    may do; it becomes an ERROR once it is seen that nothing has been learned, or little and it stands still.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc1=[1.0], fc2=[1.0])
        >>> history.append(replace(history.latest, step=1, stacked=np.array([True, False])))
        >>> [alert.message for alert in NoActivation().check(history)]
        ['fc1: no activation follows: together the layers are one linear map, which a single layer could be']

    Source: Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.1.
    """

    name: ClassVar[str] = "no_activation"

    patience: int = 1
    recovery: int = 1

    def look(self, history: History) -> None:
        """Remember what the probed step showed."""
        if history.now.stacked is not None:
            self._probed["stacked"] = history.now.stacked

    def sees(self, stats: StepStats) -> bool:
        """At any look what the probed step showed."""
        return not stats.is_plain and bool(self._probed["stacked"].any())

    def judge(self, history: History) -> Judgement:
        stacked = self._probed["stacked"]
        zeros = np.zeros(len(stacked))
        return Judgement(zeros, zeros, stacked, good=~stacked, worsens=LITTLE)

    def describe(self, value: float, threshold: float) -> str:
        return "no activation follows: together the layers are one linear map, which a single layer could be"

    def reset(self) -> None:
        super().reset()
        self._probed = self._remembered["probed"] = LayerState(stacked=False)
