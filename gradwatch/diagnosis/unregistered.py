"""Unregistered: the model uses layers that it does not know of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class Unregistered:
    """A layer in a Python list or dict is none of ``model.parameters()``, so the optimizer was not given it.

    Example:
        >>> alerts = [Alert(12, "unregistered", "head", 1, 8320.0, 0.0, "")]
        >>> print(Unregistered().explain(History(), None, alerts).evidence[0])
        8,320 weights get a gradient, are not among model.parameters(), and nothing has written to them

    Source: torch.nn.ModuleList.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = [alert for alert in told(alerts, "unregistered") if alert.value > 0]
        if not found:
            return None
        evidence = (
            f"{found[0].value:,.0f} weights get a gradient, are not among model.parameters(), and nothing has written "
            "to them"
        )
        remedy = (
            "put layers that are in a list into an nn.ModuleList, those in a dict into an nn.ModuleDict, parameters "
            "into an nn.ParameterList, what forward() makes at each call into __init__(), and make the optimizer of "
            "model.parameters() after that; or call requires_grad_(False) where they are to stay as they are"
        )
        return Diagnosis("unregistered", 0.95, layers_of(found), (evidence,), remedy, "loop")
