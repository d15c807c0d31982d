"""Unscaled inputs: the data are in units in which their numbers are large, or tiny."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.start import UNSCALED, Inputs, first_error, first_update, inputs, inputs_explain
from gradwatch.diagnosis.symptoms import UNSTABLE, told
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called

STANDARDISE = (
    "standardise the inputs: subtract each feature's mean and divide by its standard deviation (that of the training "
    "data)"
)

CLEAR_CASE = 3.0
"""Times the limit beyond which inputs explain NaN, inf and spikes, too, which have other causes more often."""


@dataclass(frozen=True)
class UnscaledInputs:
    """Training is unstable, or saturated, since the features that the first layer is given are far larger than 1.

    The curvature of the loss grows with the square of the inputs' size, so that the learning rate which is stable falls
    with it.

    Args:
        min_rms: least root mean square of the features.

    Raises:
        ValueError: when ``min_rms`` is out of range.

    Example:
        >>> from dataclasses import replace
        >>> import numpy as np
        >>> history = History.from_grad_norms(fc=[900.0], out=[1.0])
        >>> history.append(replace(history.latest, step=1, data_rms=np.array([100.0, np.nan])))
        >>> found = UnscaledInputs().explain(history, None, [Alert(1, "exploding", "fc", 2, 900.0, 50.0, "")])
        >>> print(found.evidence[0])
        the inputs of fc have a root mean square of 100, standardised ones have 1

    Source: LeCun et al., Efficient BackProp, 1998, section 4.3.
    """

    min_rms: float = UNSCALED
    # Standardised features have 1, pixels between 0 and 1 less; raw measurements in small units begin at about 4.

    def __post_init__(self) -> None:
        check_number("UnscaledInputs: min_rms", self.min_rms, above=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        own = told(alerts, "unscaled_inputs")
        given = _told_of(history, own) or inputs(history, probe)
        if own and given is not None and given.rms < 1:
            return _of_tiny(given)
        if given is None or given.rms <= self.min_rms:
            return None
        is_clear = given.rms > CLEAR_CASE * self.min_rms
        at_once = history.first is not None and not history.half and not math.isfinite(history.first.total_norm)
        symptoms = (*UNSTABLE, "off_target", "saturated", *(("nonfinite", "overflow", "spike") if is_clear else ()))
        if not (own or told(alerts, *symptoms)):
            return None
        evidence = [
            f"the inputs of {called(given.layer)} have a root mean square of {given.rms:.3g}, standardised ones have 1"
        ]
        remedy = f"{STANDARDISE}; dividing all inputs of {called(given.layer)} by {given.rms:.3g} is the least"
        error, explain = first_error(history), inputs_explain(history, given)
        if error > given.rms:
            evidence.append(f"the first mean error is about {error / 2:.2g}, more than such inputs bring")
            remedy += "; and standardise the targets likewise"
        if not explain:
            evidence.append(
                f"but a first step of {first_update(history):.2g} of the weights' size is more than they make"
            )
        if at_once and not own:
            evidence.append(
                "but the gradient was not finite before any step was made, and such inputs alone do not do that"
            )
        confidence = 0.4 if not explain or (at_once and not own) else 0.95 if is_clear else 0.85
        return Diagnosis("unscaled_inputs", confidence, (given.layer,), tuple(evidence), remedy, "data_scaling")


def _told_of(history: History, alerts: Sequence[Alert]) -> Inputs | None:
    """What the first of ``alerts`` is about: of several layers the one whose data are furthest from 1."""
    known = dict(zip(history.layers, history.data_rms.tolist()))
    sizes = {name: known.get(name, math.nan) for alert in alerts[:1] for name in alert.concerned}
    sizes = {name: rms for name, rms in sizes.items() if 0 < rms < math.inf}
    furthest = max(sizes, key=lambda name: abs(math.log(sizes[name])), default=None)
    return None if furthest is None else Inputs(furthest, sizes[furthest])


def _of_tiny(given: Inputs) -> Diagnosis:
    layer = called(given.layer)
    evidence = f"the inputs of {layer} have a root mean square of {given.rms:.2g}, standardised ones have 1"
    remedy = f"{STANDARDISE}; multiplying all inputs of {layer} by {1 / given.rms:.2g} is the least"
    return Diagnosis("unscaled_inputs", 0.9, (given.layer,), (evidence,), remedy, "data_scaling")
