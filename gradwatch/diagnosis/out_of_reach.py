"""Out of reach: targets that the activation behind the last layer cannot give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.flat_output import activation_at_output
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class OutOfReach:
    """What the model can give of the targets it has learned to, and the rest lies below zero, or above one.

    Example:
        >>> alerts = [Alert(52, "out_of_reach", "fc", 1, 0.93, 0.8, "")]
        >>> found = OutOfReach().explain(History.from_grad_norms(fc=[1.0]), None, alerts)
        >>> print(found.remedy)
        leave the activation off the model's output, or scale the targets to what it can give
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = told(alerts, "out_of_reach")
        if not found:
            return None
        what = activation_at_output(probe)
        evidence = (
            f"{found[0].value:.0%} of the squared gradient at the model's output asks for what {what} cannot give, and "
            "next to nothing of it passes"
        )
        remedy = f"leave {what} off the model's output, or scale the targets to what it can give"
        return Diagnosis("out_of_reach", 0.9, layers_of(found), (evidence,), remedy, "activation")
