"""Exploding through time: a recurrent layer that multiplies the gradient at each time step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.clip_at import ABSURD, clip_at, finite_totals, usual_norm
from gradwatch.diagnosis.symptoms import UNSTABLE, told
from gradwatch.diagnosis.through_time import in_words, may_explode, through_time
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called


@dataclass(frozen=True)
class ExplodingInTime:
    """A recurrent layer's gradient explodes now and then, at whatever learning rate: clipping bounds each step.

    Where it is beyond measure before any step was made, the weights that were drawn do it, and what a clipped step
    moves is no help.

    Args:
        factor: times the run's median norm to clip at.

    Raises:
        ValueError: when ``factor`` is not above 1.

    Example:
        >>> import numpy as np
        >>> from gradwatch.profile import TimeSteps
        >>> profile = BackwardProfile(time_steps=(TimeSteps("rnn", np.full(19, 1.5), np.full(20, 1.0)),))
        >>> history = History.from_grad_norms(rnn=[0.5] * 30 + [500.0])
        >>> alerts = [Alert(30, "exploding", "rnn", 2, 500.0, 50.0, "")]
        >>> print(ExplodingInTime().explain(history, profile, alerts).remedy)
        clip at 1.5: 3 times this run's median norm

    Source: Pascanu, Mikolov and Bengio, ICML 2013, section 3.2.
    """

    factor: float = 3.0

    def __post_init__(self) -> None:
        check_number("ExplodingInTime: factor", self.factor, above=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found, times = told(alerts, *UNSTABLE, "spike", "nonfinite"), through_time(probe)
        if not found or not times:
            return None
        worst = max(times, key=lambda t: np.nan_to_num(t.log_gain, nan=-math.inf, posinf=math.inf))
        forgets = worst.log_gain < 0 and all(alert.rule == "spike" for alert in found)
        if forgets or not may_explode(history, times):
            return None
        usual, totals = usual_norm(history), finite_totals(history)
        evidence = (
            [f"the total gradient norm reached {totals.max():.3g}, its median is {usual:.3g}"] if usual > 0 else []
        )
        if math.isfinite(worst.log_gain):
            evidence.append(in_words(worst))
        else:
            evidence.append(f"{called(worst.layer)} is recurrent: its weights count once for each of its time steps")
        remedy, change = clip_at(history, self.factor), "clipping"
        began = math.nan if history.first is None else history.first.total_norm
        if began > ABSURD and not worst.log_gain <= 0:
            evidence.append(f"it was {began:.3g} at the first step, before any had moved the weights")
            gain, of = worst.gain_per_step, f"the recurrent weights of {called(worst.layer)}"
            smaller = f"multiply {of} by {gain**-0.5:.3g}" if gain < math.inf else f"start {of} orthogonal"
            remedy, change = f"{smaller}; and clip at 1 as well, which bounds each step", "init_scale"
        return Diagnosis(
            "exploding_in_time",
            confidence=0.85,
            layers=(worst.layer,) if worst.layer else (),
            evidence=tuple(evidence),
            remedy=remedy,
            change=change,
        )
