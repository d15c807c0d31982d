"""Evaluation mode: the model was not put back into training mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class EvalMode:
    """After ``model.eval()`` nothing is dropped and batch normalisation keeps its running statistics as they are.

    Example:
        >>> print(EvalMode().explain(History(), None, [Alert(4, "eval_mode", None, 1, 1.0, 1.0, "")]).remedy)
        call model.train() before the training steps, and again after each validation with model.eval()

    Source: torch.nn.Module.eval.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        if not told(alerts, "eval_mode"):
            return None
        evidence = "model.training was False at every look, and the model has dropout or batch normalisation"
        remedy = "call model.train() before the training steps, and again after each validation with model.eval()"
        return Diagnosis("eval_mode", 0.9, (), (evidence,), remedy, "loop")
