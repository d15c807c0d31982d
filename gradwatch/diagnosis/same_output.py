"""Same output: on their way to the last layer the examples have become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis, Severity
from gradwatch.verdict import called


@dataclass(frozen=True)
class SameOutput:
    """The data are the same for every example, or what lies between two layers makes them so.

    Example:
        >>> alerts = [
        ...     Alert(100, "same_output", "fc", 1, 0.0, 1e-6, "fc: what it is given is the same for every example")
        ... ]
        >>> print(SameOutput().explain(History.from_grad_norms(fc=[1.0], out=[1.0]), None, alerts).remedy)
        look at the data as fc is given them, and at what is done with them before

    Source: Karpathy, "A recipe for training neural networks", 2019.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = [alert for alert in told(alerts, "same_output") if alert.layer]
        if not found:
            return None
        layer = found[0].layer or ""
        remedy = f"look at the data as {called(layer)} is given them, and at what is done with them before"
        if "the model's output; what " in found[0].message:  # a layer may be called anything
            remedy = (
                f"look at what happens to the examples before {called(layer)}: a mean over the batch, a normalisation "
                "over a single value, weights of zero"
            )
        began_so = "since the run began, " * (
            found[0].severity is Severity.WARNING
        )  # at once an ERROR: it differed once
        evidence = f"{began_so}of {found[0].message.partition('; ')[0]}"
        return Diagnosis("same_output", 0.9, (layer,), (evidence,), remedy)
