"""Where to clip: a limit that follows from the run's own norms."""

from __future__ import annotations

import math

import numpy as np

from gradwatch.diagnosis.start import first_update
from gradwatch.history import History
from gradwatch.progress import LITTLE
from gradwatch.records import FloatArray

NORMAL_STEPS = 20
"""Finite steps that a median needs to say what is normal."""

ABSURD = 1e6
"""Norms from which a median tells of nothing but an explosion; and how far one may be below the first norm."""

FAR = 100.0
"""Times the first norm, by which a median that grew with the gradients is no limit against their growth."""

CALM = 0.01
"""``|step| / |parameters|`` of a healthy first step."""


def clip_at(history: History, factor: float) -> str:
    """The remedy: at ``factor`` times the median norm, or where a clipped step is calm if that is less.

    The norm of a run that has learned has come down, and is no limit for what it may still need: there it is the first;
    and so it is where norms have grown beyond measure.

    >>> clip_at(History.from_grad_norms(fc=[0.5] * 30 + [900.0]), factor=3.0)
    "clip at 1.5: 3 times this run's median norm"
    >>> clip_at(History.from_grad_norms(fc=[5e3, 2e8, 2e18]), factor=3.0)
    'clip at 1: this run saw too few normal steps to tell, and 1 is usual'
    """
    totals, calm = finite_totals(history), norm_of_a_calm_step(history)
    normal = factor * float(np.median(totals)) if len(totals) >= NORMAL_STEPS else math.nan
    why = f"{factor:g} times this run's median norm"
    began = math.nan if history.first is None else factor * history.first.total_norm
    if (history.progress.left < LITTLE and normal < began < math.inf) or normal > FAR * began > 0:
        normal, why = began, f"{factor:g} times the norm that this run began with"
    if normal < began / ABSURD < math.inf:  # of what was left when nothing was
        normal = math.nan
    limits = [(normal, why), (calm, f"a step then moves the weights by {CALM:.0%}")]
    few = "too few" if len(totals) < NORMAL_STEPS else "no"
    unknown = 1.0, f"this run saw {few} normal steps to tell, and 1 is usual"
    limit, why = min(((x, reason) for x, reason in limits if 0 < x < ABSURD), default=unknown)
    return f"clip at {limit:.3g}: {why}"


def finite_totals(history: History) -> FloatArray:
    """The total norms that are finite and not zero."""
    return history.total_norm[np.isfinite(history.total_norm) & (history.total_norm > 0)]


def usual_norm(history: History) -> float:
    """Their median; NaN of none.

    >>> usual_norm(History.from_grad_norms(fc=[1.0, 2.0, 3.0, float("inf")]))
    2.0
    """
    totals = finite_totals(history)
    return float(np.median(totals)) if len(totals) else math.nan


def norm_of_a_calm_step(history: History) -> float:
    """The norm to which the first gradient must be clipped so that its step moves the weights by CALM; else NaN.

    Of gradient descent, with momentum or without, a step is in proportion to the gradient. Of Adam it is not, but there
    first steps are calm.
    """
    update = first_update(history)
    first = float(history.total_norm[0]) if len(history) else math.nan
    return first * CALM / update if update > CALM else math.nan
