"""Unscaled targets: the loss is in units in which the outputs have far to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.start import inputs, signal
from gradwatch.diagnosis.symptoms import UNSTABLE, told
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class UnscaledTargets:
    """Training is slow or unstable since the error that it begins with is far larger than 1.

    The gradient of a squared error at the outputs is the error itself: over a batch of B standardised targets its norm
    is about 2 / sqrt(B). Steps that do not grow with the gradient, as Adam's, then need very many to get there, and
    those that do are too large. Where the inputs are large the outputs are, too, and the error comes from them.

    Args:
        min_error: least norm of the gradient at the outputs, at the first steps.

    Raises:
        ValueError: when ``min_error`` is out of range.

    Example:
        >>> from dataclasses import replace
        >>> history = History.from_grad_norms(fc1=[900.0] * 30, fc2=[900.0] * 30)
        >>> for step, error in ((1, 390.0), (2, 410.0), (100, 392.0)):
        ...     history.progress.look(replace(history.latest, step=step, output_gradient=error), count=step)
        >>> found = UnscaledTargets().explain(history, None, [Alert(40, "exploding", "fc2", 2, 900.0, 100.0, "")])
        >>> print(found.evidence[0])
        the gradient at the outputs had a norm of 400 at the first steps, and 98% of that is left

    Source: LeCun et al., Efficient BackProp, 1998, section 4.5, for targets.
    """

    min_error: float = 5.0

    def __post_init__(self) -> None:
        check_number("UnscaledTargets: min_error", self.min_error, above=0)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        progress, given, sizes = history.progress, inputs(history, probe), signal(history)
        off, unstable = told(alerts, "off_target"), told(alerts, *UNSTABLE)
        if (given is not None and given.are_unscaled) or not (off or unstable):
            return None
        if off:
            return _diagnosis(0.8, f"of the outputs, {off[-1].message}")
        if not progress.first > self.min_error or progress.of_classes:
            return None
        if len(sizes) and np.median(sizes) > LARGE_SIGNAL:
            return None
        return _diagnosis(
            0.85 if progress.first > CLEAR * self.min_error else 0.7,
            f"the gradient at the outputs had a norm of {progress.first:.3g} at the first steps"
            + (f", and {progress.left:.0%} of that is left" if progress.left <= 1 else ""),
            "with standardised targets it is 2 / sqrt(batch) at most; a loss that is multiplied by a number, or "
            "summed, looks the same",
        )


def _diagnosis(confidence: float, *evidence: str) -> Diagnosis:
    remedy = "standardise the targets: subtract their mean and divide by their standard deviation (that of the "
    return Diagnosis("unscaled_targets", confidence, (), evidence, f"{remedy}training data)", "data_scaling")


CLEAR = 4.0
"""Times the limit from which large targets come before the learning rate."""

LARGE_SIGNAL = 50.0
"""Norm of most layers' inputs at the first step that explains a large error."""
