"""Large steps: the weights are thrown about, or the gradient has outgrown where training was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.history import History
from gradwatch.records import Alert, Diagnosis

NORMAL_STEPS = 20
"""Finite steps that a median needs to say what is normal: a run that overflows at once has seen nothing normal."""


@dataclass(frozen=True)
class LargeSteps:
    """Compares how far a step moves the weights with how large they are, and the gradients with their own past.

    Args:
        max_update: the largest ``|step| / |weights|`` that is ordinary.

    Raises:
        ValueError: when ``max_update`` is not above 0.

    Example:
        >>> history = History.from_grad_norms(fc=[1.0] * 30 + [1e4] * 10)
        >>> alerts = [Alert(39, "exploding", "fc", 2, 1e4, 1e3, "")]
        >>> print(LargeSteps().explain(history, None, alerts).evidence[0])
        the total gradient norm is 1e+04, 1e+04 times its median of 1

    Source: the ratio of update to weights, about 1e-3 in healthy training, is from Karpathy's CS231n notes.
    """

    max_update: float = 0.1

    def __post_init__(self) -> None:
        if not self.max_update > 0:
            raise ValueError(f"LargeSteps: max_update must be above 0, got {self.max_update!r}")

    def explain(self, history: History, probe: object, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = [a for a in alerts if a.rule == "exploding"]
        totals = history.total_norm[np.isfinite(history.total_norm) & (history.total_norm > 0)]
        if not found or not len(totals):
            return None
        peak, median = float(totals.max()), float(np.median(totals))
        evidence = []
        if peak > 10 * median > 0:
            evidence.append(
                f"the total gradient norm is {peak:.2g}, {peak / median:.2g} times its median of {median:.2g}"
            )
        else:
            evidence.append(f"the total gradient norm is {median:.2g} in the median and {peak:.2g} at most")
        update = np.nan_to_num(history.update_ratio)
        worst = int(np.argmax(update)) if len(update) else 0
        moved = float(update[worst]) if len(update) else 0.0
        if moved > self.max_update:
            evidence.append(f"one step changed the weights of {history.layers[worst]} by {moved:.0%} of their size")
        usual = median if peak > 10 * median else median / 10
        target = usual if len(totals) >= NORMAL_STEPS else 1.0
        return Diagnosis(
            "large_steps",
            confidence=0.9 if moved > self.max_update else 0.6,
            layers=tuple(dict.fromkeys(a.layer for a in found if a.layer)),
            evidence=tuple(evidence),
            remedy=f"clip: gradwatch.clipping.GlobalNorm(max_norm={target:.2g}); or start from smaller weights "
            "(He or Xavier initialisation), or lower the learning rate",
        )
