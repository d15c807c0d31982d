"""First non-finite: where NaN or inf came in, and what the gradients did before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.history import History
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class FirstNonFinite:
    """Tells an overflow that was coming from a NaN out of a clear sky, and which layers still had finite gradients.

    Example:
        >>> history = History.from_grad_norms(a=[1.0] * 20 + [float("nan")], b=[1.0] * 21)
        >>> alerts = [Alert(20, "nonfinite", "a", 2, float("nan"), float("inf"), "")]
        >>> print(FirstNonFinite().explain(history, None, alerts).evidence[0])
        at step 20 the gradient was not finite in 1 of 2 layers: a
    """

    def explain(self, history: History, probe: object, alerts: Sequence[Alert]) -> Diagnosis | None:
        broken = history.has_grad & ~np.isfinite(history.grad_norm)
        rows = np.flatnonzero(broken.any(axis=1))
        if not any(a.rule == "nonfinite" for a in alerts) or not len(rows):
            return None
        start = rows[0]
        names = tuple(np.array(history.layers, dtype=object)[broken[start]].tolist())
        shown = ", ".join(names[-3:][::-1])
        evidence = [
            f"at step {history.steps[start]} the gradient was not finite in {len(names)} of {len(history.layers)} "
            f"layers: {shown}{', ...' if len(names) > 3 else ''}"
        ]
        before = history.total_norm[:start]
        before = before[np.isfinite(before) & (before > 0)]
        grew = len(before) > 1 and before[-1] > 100 * np.median(before[:-1])
        if grew:
            ratio = before[-1] / np.median(before[:-1])
            evidence.append(f"the step before, the total norm was {before[-1]:.2g}, {ratio:.2g} times its median")
        elif len(before):
            evidence.append(f"the step before, the total norm was {before[-1]:.2g}, nothing unusual")
        one = len(names) < len(history.layers)
        remedy = (
            "the gradients grew first: clip them or lower the learning rate"
            if grew
            else f"look at what follows {names[-1]} for a division by zero, log or sqrt of zero; "
            if one
            else "the loss or the last operations made it (log or sqrt of zero, division by zero, an overflow in half "
            "precision), or the batch holds NaN"
        )
        if not grew:
            remedy = remedy.rstrip("; ") + "; torch.autograd.set_detect_anomaly(True) names the operation"
        return Diagnosis("first_nonfinite", 0.8 if grew else 0.5, names, tuple(evidence), remedy)
