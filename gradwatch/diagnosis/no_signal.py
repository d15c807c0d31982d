"""No signal: layers whose gradient is exactly zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.history import History
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class NoSignal:
    """Counts the layers that receive exactly zero, and finds the layer nearest to the output among them.

    Example:
        >>> history = History.from_grad_norms(a=[0.0] * 60, b=[0.0] * 60, c=[1.0] * 60)
        >>> alerts = [Alert(59, "dead", "a", 1, 0.0, 0.0, "")]
        >>> print(NoSignal().explain(history, None, alerts).evidence[0])
        2 of 3 layers receive a gradient of exactly zero, the last of them is b
    """

    def explain(self, history: History, probe: object, alerts: Sequence[Alert]) -> Diagnosis | None:
        stats = history.latest
        if stats is None or not any(a.rule == "dead" for a in alerts):
            return None
        zero = stats.has_grad & (stats.grad_norm == 0)
        names = tuple(name for name, z in zip(stats.layers, zero) if z)
        if not names:
            return None
        return Diagnosis(
            "no_signal",
            confidence=0.5,
            layers=names,
            evidence=(
                f"{len(names)} of {len(stats.layers)} layers receive a gradient of exactly zero, "
                f"the last of them is {names[-1]}",
            ),
            remedy=f"look behind {names[-1]}: ReLU units that are zero for every example (smaller learning rate, "
            "LeakyReLU, He initialisation), a detach(), or a branch that is not used; freeze it if that is meant",
        )
