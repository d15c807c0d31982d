"""Symmetric: all units of a layer are alike, and stay so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradwatch.rules.flagged import Flagged


@dataclass
class Symmetric(Flagged):
    """All units of a layer have the same weights and are given the same gradient: the layer is as wide as one of them.

    So it is where weights are initialised to one number, whatever the biases. What training cannot tell apart it
    changes alike, and so it stays. It is seen at the first steps and at the sampled ones, and is a WARNING, since one
    unit may do; it becomes an ERROR once it is seen that nothing has been learned, or little and it stands still.

    Args:
        patience: looks in a row before the alert.
        recovery: looks in a row without it before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> import numpy as np
        >>> from gradwatch.history import History
        >>> history = History.from_grad_norms(fc1=[1.0], fc2=[1.0])
        >>> history.append(replace(history.latest, step=1, alike=np.array([True, False])))
        >>> [alert.message for alert in Symmetric(patience=1).check(history)]
        ['fc1: all of its units have the same weights, and hardly a gradient that tells them apart']

    Source: Goodfellow, Bengio and Courville, Deep Learning, 2016, section 8.4: initial weights must break symmetry.
    """

    name: ClassVar[str] = "symmetric"
    looks_at: ClassVar[tuple[str, ...]] = ("alike",)

    patience: int = 4
    recovery: int = 1

    def describe(self, value: float, threshold: float) -> str:
        return "all of its units have the same weights, and hardly a gradient that tells them apart"
