"""Where to clip: a limit that follows from the run's own norms."""

from __future__ import annotations

import math

import numpy as np

from gradwatch.diagnosis.start import first_update
from gradwatch.history import History


def usual_norm(history: History) -> float:
    """Median of the total norm over the steps that are finite; NaN of none.

    >>> usual_norm(History.from_grad_norms(fc=[1.0, 2.0, 3.0, float("inf")]))
    2.0
    """
    totals = history.total_norm[np.isfinite(history.total_norm) & (history.total_norm > 0)]
    return float(np.median(totals)) if len(totals) else math.nan


def norm_of_a_calm_step(history: History, calm: float) -> float:
    """The norm to which the first gradient must be clipped so that its step moves the weights by ``calm``; else NaN.

    Of plain and momentum gradient descent a step is in proportion to the gradient; of Adam it is not, and there first
    steps are calm.
    """
    update = first_update(history)
    first = float(history.total_norm[0]) if len(history) else math.nan
    return first * calm / update if update > calm and math.isfinite(first) and first > 0 else math.nan
