"""Learning rate: steps that are larger than the loss's curvature allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.start import (
    TOO_LARGE,
    excess_of_weights,
    first_update,
    inputs,
    inputs_explain,
    largest_update,
)
from gradwatch.diagnosis.symptoms import UNSTABLE, count_at, layers_of, never_had_one, told
from gradwatch.diagnosis.through_time import may_explode, through_time
from gradwatch.diagnosis.words import PROBE_WOULD_TELL
from gradwatch.history import EARLY, History
from gradwatch.patterns import check_number
from gradwatch.profile import SEVERE, BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class LearningRate:
    """The first steps move the weights far, or later ones as far as they are large, and nothing else explains it.

    Args:
        healthy_update: ``|step| / |parameters|`` that the first step should have.
        max_update: the same from which the first step is too large.
        throws: the same of any step, from which it throws the weights about.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history, stats = History(), History.from_grad_norms(fc=[2.0], out=[1.0]).latest
        >>> history.append(stats)
        >>> history.append(replace(stats, step=1, total_update=1.2))
        >>> alerts = [Alert(1, "update_ratio", None, 2, 1.2, 0.5, "")]
        >>> print(LearningRate().explain(history, None, alerts).remedy)
        divide the learning rate by 120

    Source: LeCun et al., Efficient BackProp, 1998: gradient descent diverges beyond twice the inverse of the largest
    eigenvalue. Ratios of 1e-3 to 1e-2 are from Karpathy's CS231n notes.
    """

    healthy_update: float = 0.01
    # Ratios of 1e-3 are usual; first steps are larger than later ones.
    max_update: float = TOO_LARGE
    # Healthy first steps in docs/detection.md move the weights by 0.01 or less.
    throws: float = 0.3
    # A third of what they are: what was learned is gone.

    def __post_init__(self) -> None:
        check_number("LearningRate: healthy_update", self.healthy_update, above=0)
        check_number("LearningRate: max_update", self.max_update, at_least=self.healthy_update)
        check_number("LearningRate: throws", self.throws, at_least=self.max_update)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        first, largest = first_update(history), largest_update(history)
        spikes, leaps = len({a.step for a in told(alerts, "spike")}), told(alerts, "unstable")
        late = [a for a in told(alerts, "update_ratio") if count_at(history, a) > EARLY]
        steps = [a for a in late if a.value > a.threshold]
        steps = steps if history.progress.is_none(but=LITTLE) else []
        too_large = first > self.max_update or largest > self.throws or spikes >= SEVERAL or bool(leaps or steps)
        died = [a for a in told(alerts, "dead") if not never_had_one(history, a.concerned)]
        symptoms = bool(died or told(alerts, *UNSTABLE, "spike"))
        if not too_large or not (symptoms or told(alerts, "nonfinite")):
            return None
        evidence, remedy, divisor = [], "", 10.0
        if first > self.max_update:
            divisor = first / self.healthy_update
            evidence.append(
                f"the first step moved the weights by {first:.2g} of their size; {self.healthy_update:g} is healthy"
            )
        if largest > np.fmax(first, self.throws):
            evidence.append(f"one step moved the weights by {largest:.2g} of their size")
        if leaps:
            evidence.append(f"by step {leaps[0].step} the gradient had leapt again and again, and had not come down")
        if spikes >= SEVERAL:
            recovers = ": single batches throw training off, and it recovers" * (not told(alerts, *UNSTABLE))
            evidence.append(f"the gradient spiked {spikes} times{recovers}")
        if steps and not evidence:
            too_far = f"{steps[0].value:.2g} of the weights' size, where {steps[0].threshold:.2g} is the limit"
            evidence.append(f"by step {steps[0].step} hardly anything was learned, and steps were {too_far}")
        growth, shock = steady_growth(history), steps_of_shock(history)
        if growth > 1:
            divisor = 1 + growth
            evidence.append(
                f"the gradient grows {growth:.3g}-fold at every step: the learning rate is {1 + growth:.3g} times the "
                "inverse of the loss's largest curvature, and 2 is the limit"
            )
        elif shock:
            those = f"{shock} step{'s' * (shock > 1)}"
            evidence.append(f"only the first {those} moved so far: the schedule begins too high, and is fine later")
            remedy = f"divide the learning rate of the first {those} by {divisor:.3g}"
        others = _others(history, probe)
        if probe is None:
            evidence.append(PROBE_WOULD_TELL)
        confidence = 0.3 if others else 0.6 if probe is None or not first > self.max_update else 0.8
        return Diagnosis(
            "learning_rate",
            confidence if symptoms else min(confidence, 0.4),  # NaN alone has other reasons more often
            layers=layers_of([a for a in alerts if a.rule in UNSTABLE]),
            evidence=(*evidence, *others),
            remedy=remedy or f"divide the learning rate by {divisor:.3g}",
            change="lr",
        )


LITTLE = 0.8
"""Share of the outputs' error that is left where hardly anything was learned."""

SEVERAL = 2
"""Spikes that are no accident of one batch."""

STEADY = 8
"""Steps over which a divergence is steady."""

FALL = 30.0
"""Ratio of a step's size to the next one's that only a schedule makes."""


def steady_growth(history: History) -> float:
    """The factor by which the gradient grows at each of the first steps, where that is always the same; else NaN.

    It tells the curvature: along its direction gradient descent multiplies by ``1 - lr * curvature``.
    """
    norms = history.total_norm[1 : 1 + STEADY]
    if len(norms) < STEADY or history.count != len(history) or not (np.isfinite(norms) & (norms > 0)).all():
        return math.nan
    ratios = norms[1:] / norms[:-1]
    return float(np.median(ratios)) if ratios.max() < 1.1 * ratios.min() else math.nan


def steps_of_shock(history: History) -> int:
    """How many of the first steps were far larger than all that follow them; 0 where none was.

    Measured against the gradients, as they are the learning rate's: a gradient that falls makes smaller steps as well.
    """
    updates, norms = history.total_update[1 : 1 + STEADY], history.total_norm[:STEADY]
    with np.errstate(all="ignore"):
        falls = updates[:-1] / updates[1:]
        kept = norms[: len(falls)] / norms[1 : len(falls) + 1]
    if history.count != len(history) or not len(falls) or not np.isfinite(updates).all():
        return 0
    at = np.flatnonzero((falls > FALL) & (kept < FALL))
    return int(at[0]) + 1 if len(at) and updates[: at[0] + 1].min() > FALL * updates[at[0] + 1 :].max() else 0


def _others(history: History, probe: BackwardProfile | None) -> list[str]:
    """What explains large steps as well, in sentences."""
    given, weights = inputs(history, probe), excess_of_weights(history, probe)
    found = []
    if given is not None and given.are_unscaled and inputs_explain(history, given):
        found.append(f"but the inputs are {given.rms:.3g} times as large as standardised ones")
    if math.fsum(e for e in weights.values() if e > 0) >= SEVERE:
        found.append("but the initial weights are too large")
    if may_explode(history, through_time(probe)):
        found.append("but the layer is recurrent, where single steps explode at any learning rate")
    return found
