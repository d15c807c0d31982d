"""First non-finite: where NaN or inf came in, and what the gradients did before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.history import History
from gradwatch.records import Alert, BoolArray, Diagnosis


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
        broken = history.has_grad & ~np.isfinite(history.grad_norm) & ~history.skipped[:, None]
        asked = [a.step for a in alerts if a.rule == "nonfinite"]
        ill: BoolArray = np.any(broken, axis=1)
        rows = np.flatnonzero(ill & (history.steps <= max(asked, default=-1)))
        if not len(rows):
            return None
        well = np.flatnonzero(~ill[: rows[-1]])
        start = int(well[-1]) + 1 if len(well) else 0
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
        anomaly = "torch.autograd.set_detect_anomaly(True) names the operation"
        if grew:
            remedy = "the gradients grew first: clip them or lower the learning rate"
        elif len(names) < len(history.layers):
            remedy = f"look at what follows {names[-1]} for a division by zero, log or sqrt of zero; {anomaly}"
        else:
            remedy = (
                "the loss or the last operations made it (log or sqrt of zero, division by zero, an overflow in half "
                f"precision), or the batch holds NaN; {anomaly}"
            )
        if not grew and np.isinf(history.grad_norm[start]).any() and not history.skipped_count:
            remedy += "; if a GradScaler is in use, give it to the monitor (scaler=): the steps it skips are no fault"
        return Diagnosis("first_nonfinite", 0.8 if grew else 0.5, names, tuple(evidence), remedy)
