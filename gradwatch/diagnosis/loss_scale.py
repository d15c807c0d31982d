"""Loss scale: float16 has no number for the gradients, as they are too large or too small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.broken_step import broken_by_a_step
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called

RULES = ("overflow", "underflow", "skipped", "nonfinite", "dead", "vanishing")


@dataclass(frozen=True)
class LossScale:
    """In float16 gradients become inf above 65,504 and 0 below 3e-8, unless the loss is scaled to lie in between.

    Example:
        >>> history = History.from_grad_norms(fc1=[0.0] * 9, fc2=[0.0] * 9)
        >>> found = LossScale().explain(history, None, [Alert(5, "underflow", None, 2, 0.0, 6e-8, "")])
        >>> print(found.evidence[0])
        gradients are too small for float16, which has no number between 0 and 6e-08
        >>> print(found.remedy.partition(";")[0])
        run autocast in bfloat16, which has the range of float32 and needs no loss scale

    Source: Micikevicius et al., ICLR 2018, section 3.2.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found, half = told(alerts, *RULES), history.half or (probe is not None and probe.half)
        named = [a for a in found if a.rule in ("overflow", "underflow", "skipped")]
        if (not named and not (half and found)) or broken_by_a_step(history) is not None:
            return None
        rules = {a.rule for a in found}
        evidence = []
        if rules & {"underflow", "dead", "vanishing"} and not rules & {"overflow", "skipped", "nonfinite"}:
            evidence.append("gradients are too small for float16, which has no number between 0 and 6e-08")
        else:
            evidence.append("gradients are too large for float16, which ends at 65,504")
        if history.skipped_count:
            evidence.append(f"the gradient scaler skipped {history.skipped_count} of {history.count} steps")
        if half and not named:
            evidence.append("parts of the model are computed in float16")
        where = probe.nonfinite if probe is not None else None
        if where is not None and where.where in ("forward", "backward"):
            by = f"by {where.operation} in " if where.operation else "in "
            evidence.append(f"the first was made {by}{called(where.module or 'the loss')}, in the {where.where} pass")
        certain = bool(rules & {"overflow", "underflow"}) or half
        return Diagnosis(
            "loss_scale",
            confidence=(0.9 if rules & {"overflow", "underflow", "skipped", "nonfinite"} else 0.6) if certain else 0.7,
            layers=layers_of(found) or _lost(history),
            evidence=tuple(evidence),
            remedy="run autocast in bfloat16, which has the range of float32 and needs no loss scale; or, where there "
            "is no bfloat16, give the loss to a torch.amp.GradScaler with its default settings",
            change="precision",
        )


def _lost(history: History) -> tuple[str, ...]:
    """The layers whose latest gradient is beyond the numbers that there are, or 0."""
    stats = history.latest
    if stats is None:
        return ()
    lost = stats.has_grad & (~np.isfinite(stats.grad_norm) | (stats.grad_norm == 0))
    return tuple(name for name, is_lost in zip(stats.layers, lost) if is_lost)
