"""Small steps: the weights stay where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import span
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import AFTER_CLIPPING, Alert, Diagnosis


@dataclass(frozen=True)
class SmallSteps:
    """The gradient is there, and the optimizer makes nothing of it.

    Args:
        usual_update: ``|step| / |parameters|`` that the largest step should have, or up to ten times that: Adam's first
            steps are as large, and what is still too small learns no more than before.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> alerts = [Alert(101, "stalled", "fc", 1, 3e-8, 1e-6, "")]
        >>> found = SmallSteps().explain(History.from_grad_norms(fc=[1.0]), None, alerts)
        >>> print(found.remedy)
        multiply the learning rate by 100000

    Source: Karpathy, CS231n: updates of 1e-3 of the weights' size are usual.
    """

    usual_update: float = 1e-3

    def __post_init__(self) -> None:
        check_number("SmallSteps: usual_update", self.usual_update, above=0)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found, stats = told(alerts, "stalled"), history.latest
        if not found or stats is None or not 0 <= found[0].value < self.usual_update:
            return None
        if found[0].threshold == 0:
            return _of_a_group(found[0].concerned)
        most, norm = found[0].value, stats.total_norm
        before = history.total_update[history.steps <= found[0].step]
        largest = float(np.fmax.reduce(before, initial=0.0))
        ended = largest > LARGER * most
        when = "lately" if largest > most * (1 + SAME) else "so far"
        evidence = f"with a total gradient norm of {norm:.3g} no step {when} has changed the weights"
        if ended and not _is_clipped(history):
            by = "at all" if most == 0 else f"by more than {most:.2g} of their size"
            evidence += f" {by}; earlier steps changed them by up to {largest:.2g}"
            remedy, change = (
                "let the schedule of the learning rate end later: it may count epochs and be stepped once per batch",
                "lr",
            )
        elif most == 0:
            evidence, change = f"{evidence} at all", ""
            remedy = (
                "look whether optimizer.step() is called, whether the optimizer has these parameters, whether its "
                "learning rate is above 0, and whether the weights are in float32: a small step is lost in the "
                "rounding of float16 and bfloat16"
            )
        elif _is_clipped(history):
            evidence += f" by more than {most:.2g} of their size; that norm is the same at every step: it is clipped"
            remedy, change = (
                "raise the max_norm that gradients are clipped to, or do not clip; Adam's steps do not depend on it, "
                "and need a larger learning rate",
                "clipping",
            )
        else:
            evidence += f" by more than {most:.2g} of their size; {self.usual_update:g} is usual"
            factor = 10.0 ** math.ceil(math.log10(self.usual_update) - math.log10(most))
            remedy, change = f"multiply the learning rate by {factor:.0f}", "lr"
        return Diagnosis("small_steps", 0.9, layers_of(found), (evidence,), remedy, change)


def _of_a_group(layers: tuple[str, ...]) -> Diagnosis:
    evidence = f"steps had changed the weights of {span(layers)} by nothing, or next to it, and others as usual"
    remedy = (
        "look whether the optimizer has them, and in their parameter group a learning rate like that of others; or "
        "they are in float16 or bfloat16, in whose rounding small steps are lost"
    )
    return Diagnosis("small_steps", 0.8, layers, (evidence,), remedy, "lr")


def _is_clipped(history: History) -> bool:
    """Whether the total norm is always the same while the layers' shares in it are not, and less than limits are."""
    total, norms = history.total_norm[-ALIKE_STEPS:], history.grad_norm[-ALIKE_STEPS:]
    known = history.latest is not None and history.latest.captured == AFTER_CLIPPING and len(total) == ALIKE_STEPS
    known = known and bool(total[-1] < USUAL_LIMIT)
    return known and bool(np.ptp(total) < 1e-3 * total.max() and np.ptp(norms, axis=0).max() > 1e-2 * total.max())


LARGER = 10.0
"""Ratio of the largest step to the latest ones from which these have come to their end."""

SAME = 1e-6
"""Relative difference of two steps up to which one is the other, rounded."""

USUAL_LIMIT = 0.1
"""Total norms to which gradients are clipped as a rule are larger: at these it is the learning rate that is too low."""

ALIKE_STEPS = 8
"""Steps whose norms agree only where they are made to."""
