"""Not zeroed: the training loop adds up the gradients of all steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class NotZeroed:
    """``backward()`` adds to the gradients that are there, and nothing sets them to zero between two steps.

    Example:
        >>> history = History.from_grad_norms(fc=[1.0, 2.0, 3.0, 4.0])
        >>> found = NotZeroed().explain(history, None, [Alert(3, "not_zeroed", "fc", 2, 4.0, 0.0, "")])
        >>> print(found.evidence[0])
        each backward pass found the last step's gradient and added to it; in 4 steps the total norm went from 1 to 4
        >>> print(found.remedy)
        call optimizer.zero_grad() once per step, before backward()
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found, norms = told(alerts, "not_zeroed"), history.total_norm
        if not found:
            return None
        known, growth = norms[np.isfinite(norms)], ""
        if len(known):
            growth = f"; in {len(norms)} steps the total norm went from {known[0]:.3g} to {known[-1]:.3g}"
        return Diagnosis(
            "not_zeroed",
            confidence=0.95,
            layers=layers_of(found),
            evidence=("each backward pass found the last step's gradient and added to it" + growth,),
            remedy="call optimizer.zero_grad() once per step, before backward()",
            change="loop",
        )
