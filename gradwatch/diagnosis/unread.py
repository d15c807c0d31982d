"""Unread: the output that is used has seen next to nothing of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import span
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class Unread:
    """Batch and time are mixed up, or the output at the first time step is taken for that at the last one.

    Example:
        >>> alerts = [Alert(12, "unread", "lstm", 1, 64.0, 1.0, "")]
        >>> print(Unread().explain(History(), None, alerts).evidence[0])
        at each look the last sequence of the batch alone got a gradient, at 64 time steps, which are the examples

    Source: torch.nn.LSTM, batch_first.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = told(alerts, "unread")
        if not found:
            return None
        layers, steps = layers_of(found), found[0].value
        if steps > 1:
            evidence = (
                f"at each look the last sequence of the batch alone got a gradient, at {steps:.0f} time steps, which "
                "are the examples"
            )
            remedy = (
                f"make {span(layers)} with batch_first=True where its input is [batch, time, features], and without "
                "it where it is [time, batch, features]; the output of the last time step is output[:, -1] then, or "
                "output[-1]"
            )
        else:
            evidence = (
                "at each look the first time step alone got a gradient, so nothing that comes later can be learned"
            )
            remedy = (
                f"use the output of {span(layers)} at the last time step, output[:, -1] with batch_first=True and "
                "output[-1] without it, or the mean over all of them"
            )
        return Diagnosis("unread", 0.9, layers, (evidence,), remedy, "loop")
