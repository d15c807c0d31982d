"""Untrained: the optimizer was not given all parameters that are to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import span
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class Untrained:
    """A layer that is made after the optimizer, or beside what that was given, is never changed by a step.

    Example:
        >>> alerts = [Alert(12, "untrained", "body", 1, 0.0, 0.0, "")]
        >>> print(Untrained().explain(History(), None, alerts).evidence[0])
        body has a gradient at every step, is in no parameter group of the optimizer, and nothing has written to it

    Source: torch.optim.Optimizer.add_param_group.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        layers = layers_of(told(alerts, "untrained"))
        if not layers:
            return None
        one = len(layers) == 1
        evidence = (
            f"{span(layers)} {'has' if one else 'have'} a gradient at every step, {'is' if one else 'are'} in no "
            f"parameter group of the optimizer, and nothing has written to {'it' if one else 'them'}"
        )
        remedy = (
            f"give the optimizer the parameters of {span(layers)}, which must be there when it is made; or, if they "
            "are to stay as they are, call requires_grad_(False), which saves their part of the backward pass"
        )
        return Diagnosis("untrained", 0.9, layers, (evidence,), remedy, "loop")
