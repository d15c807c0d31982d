"""Heavy dropout: what is left of the signal is random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class HeavyDropout:
    """Little is learned where dropout leaves a few units of each layer, others at each step.

    Example:
        >>> print(HeavyDropout().explain(History(), None, [Alert(4, "heavy_dropout", None, 1, 0.95, 0.8, "")]).remedy)
        set the dropout layers' p to 0.5 or less

    Source: Srivastava et al., JMLR 15, 2014, section 7.3.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = told(alerts, "heavy_dropout")
        if not found or not 0 < found[0].value <= 1:
            return None
        kept = 1 - found[0].value
        evidence = "a dropout layer sets all that it is given to zero"
        if kept > 0:
            evidence = f"a dropout layer keeps {kept:.2g} of what it is given, and multiplies it by {1 / kept:.3g}"
        return Diagnosis("heavy_dropout", 0.8, (), (evidence,), "set the dropout layers' p to 0.5 or less", "dropout")
