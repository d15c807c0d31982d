"""Flat operation: between two layers is one whose derivative is zero everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import Account, account
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import place
from gradwatch.diagnosis.zero_weights import zero_layers
from gradwatch.history import History
from gradwatch.profile import BackwardProfile, Segment
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class FlatOperation:
    """The gradient ends at an operation that is no activation: rounding, a sign, a product with zero.

    Example:
        >>> segments = Segment("out", "weight", "Addmm", 1.0, 1.0), Segment("net", "other", "Round", 0.0, 1.0)
        >>> alerts = [Alert(8, "dead", "fc", 2, 0.0, 0.0, "")]
        >>> found = FlatOperation().explain(History(), BackwardProfile(segments), alerts)
        >>> print(found.evidence[0])
        all of the gradient comes to Round in net, and nothing passes it
        >>> print(found.remedy)
        leave Round out, or keep it in the forward pass alone: x + (f(x) - x).detach() in place of f(x)

    Source: Bengio, Leonard and Courville, 2013: the straight-through estimator.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found, flat = told(alerts, "dead", "vanishing"), flat_operation(account(probe))
        if not found or flat is None or zero_layers(history, probe, found):
            return None
        remedy = f"look at {flat.operation}{place([flat.layer])}: what it gives does not depend on what it is given"
        if flat.kind == "other":
            remedy = (
                f"leave {flat.operation} out, or keep it in the forward pass alone: x + (f(x) - x).detach() in place "
                "of f(x)"
            )
        return Diagnosis(
            "flat_operation",
            confidence=0.9,
            layers=layers_of(found),
            evidence=(f"all of the gradient comes to {flat.operation}{place([flat.layer])}, and nothing passes it",),
            remedy=remedy,
            change="architecture" if flat.kind == "other" else "",
        )


def flat_operation(whole: Account | None) -> Segment | None:
    """What passes nothing, where that is neither an activation nor weights, which have causes of their own."""
    last = whole.entries[-1].segment if whole is not None and whole.is_cut else None
    return last if last is not None and last.kind in KINDS else None


KINDS = frozenset({"multiply", "norm", "other"})
"""What such an operation can be."""
