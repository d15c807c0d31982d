"""Bad batch: one step's data throw the gradient out of line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.clip_at import clip_at, usual_norm
from gradwatch.diagnosis.learning_rate import SEVERAL
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis, Severity
from gradwatch.verdict import counted


@dataclass(frozen=True)
class BadBatch:
    """A gradient jumped in one step and was itself again right after: that step's batch is unlike the others.

    Args:
        factor: times the run's median norm to clip at.

    Raises:
        ValueError: when ``factor`` is not above 1.

    Example:
        >>> history = History.from_grad_norms(fc=[0.5] * 30 + [50.0] + [0.5] * 5)
        >>> alerts = [Alert(30, "spike", "fc", 1, 50.0, 5.0, "")]
        >>> found = BadBatch().explain(history, None, alerts)
        >>> print(found.evidence[0])
        at step 30 the total gradient norm was 50, 100 times the median of 0.5, and normal again right after
        >>> print(found.remedy)
        clip at 1.5: 3 times this run's median norm; and look at the batch of step 30

    Source: Chowdhery et al., 2022 (PaLM), section 5.1: spikes come of particular batches, and skipping them helps.
    """

    factor: float = 3.0

    def __post_init__(self) -> None:
        check_number("BadBatch: factor", self.factor, above=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        spikes, usual = told(alerts, "spike"), usual_norm(history)
        if not spikes or not usual > 0:
            return None
        worst = max(spikes, key=lambda a: a.value / a.threshold if a.threshold > 0 else 0.0)
        rows = np.flatnonzero(history.steps == worst.step)
        peak = float(history.total_norm[rows[0]]) if len(rows) else worst.value
        if not usual < peak < math.inf:
            return None
        worse = any(a.severity is Severity.ERROR for a in alerts)
        steps = len({a.step for a in spikes})
        several = steps >= SEVERAL
        also = f"; the same happened at {counted(steps - 1, 'other step')}" if several else ""
        return Diagnosis(
            "bad_batch",
            confidence=0.3 if several or worse else 0.7,
            layers=layers_of(spikes),
            evidence=(
                f"at step {worst.step} the total gradient norm was {peak:.3g}, {peak / usual:.3g} times the median of "
                f"{usual:.3g}, and normal again right after{also}",
            ),
            remedy=f"{clip_at(history, self.factor)}; and look at the batch of step {worst.step}",
            change="clipping",
        )
