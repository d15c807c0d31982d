"""Broken step: the optimizer makes NaN or inf of a gradient that is finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class BrokenStep:
    """The weights are NaN or inf before the gradient is, as the optimizer divides by zero.

    Adam divides by the root of the mean squared gradient, and adds eps lest that be zero. In float16 the square of
    3e-4 is zero, and so is the eps of 1e-8 that is the default.

    Example:
        >>> from dataclasses import replace
        >>> history, stats = History(), History.from_grad_norms(fc=[0.1]).latest
        >>> history.append(stats)
        >>> broken = {"grad_norm": np.full(1, np.nan), "total_norm": np.nan, "broken": True, "half": True}
        >>> history.append(replace(stats, step=1, **broken))
        >>> found = BrokenStep().explain(history, None, [Alert(1, "overflow", "fc", 2, np.nan, np.inf, "")])
        >>> print(found.evidence[0])
        the step that followed the gradient of step 0 made NaN or inf of the weights, and that gradient was \
finite, of norm 0.1

    Source: Kingma and Ba, ICLR 2015, algorithm 1: eps; IEEE 754: the least number of float16 is 6e-8.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        alike = [replace(a, follows="") if a.follows == "update_ratio" else a for a in alerts]  # it is the same step
        found, row = told(alike, "overflow", "nonfinite"), broken_by_a_step(history)
        if not found or row is None:
            return None
        evidence = (
            f"the step that followed the gradient of step {history.steps[row]} made NaN or inf of the weights, and "
            f"that gradient was finite, of norm {history.total_norm[row]:.2g}"
        )
        if history.half:
            remedy, change = (
                "keep the weights in float32 and compute under autocast; or give Adam eps=1e-4: in float16 the default "
                "of 1e-8 is 0, and so are the squares of gradients, so that it divides zero by zero; of another "
                "optimizer the learning rate is far too high",
                "precision",
            )
        else:
            remedy, change = (
                "look what the optimizer divides by: an eps of 0 makes 0 / 0 of weights without a gradient; 1e-8 is "
                "usual; or the learning rate is far too high",
                "eps",
            )
        return Diagnosis("broken_step", 0.9, layers_of(found), (evidence,), remedy, change)


def broken_by_a_step(history: History) -> int | None:
    """The row of the last finite gradient, where the step that followed it made NaN or inf of the weights."""
    total = history.total_norm
    ill = np.flatnonzero(~np.isfinite(total))
    row = int(ill[0]) - 1 if len(ill) else -1
    if row < 0 or history.broken_at != history.steps[row + 1] or history.skipped[: row + 2].any():
        return None
    return row if 0 < total[: row + 1].max() < MODERATE else None


MODERATE = 650.0
"""Norms up to which a gradient is far from 65,504, where float16 ends."""
