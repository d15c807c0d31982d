"""Growing gradient: it has outgrown where training was, and no step was too large before that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.clip_at import NORMAL_STEPS, clip_at, usual_norm
from gradwatch.diagnosis.start import largest_update
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called


@dataclass(frozen=True)
class GrowingGradient:
    """Compares the gradient with its own past, where nothing that was measured of the network explains it.

    Args:
        factor: times the run's median norm to clip at, and a third of the least growth that is told of.
        throws: ``|step| / |parameters|`` of a step that explains it by itself.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> history = History.from_grad_norms(fc=[1.0] * 30 + [1e4] * 10)
        >>> alerts = [Alert(39, "exploding", "fc", 1, 1e4, 1e3, "")]
        >>> found = GrowingGradient().explain(history, None, alerts)
        >>> print(found.evidence[0])
        the gradient norm of fc is 1e+04, 1e+04 times the median total norm of 1
        >>> print(found.remedy)
        clip at 3: 3 times this run's median norm

    Source: Pascanu, Mikolov and Bengio, ICML 2013, section 3.2: half to ten times the average norm.
    """

    factor: float = 3.0
    throws: float = 0.3

    def __post_init__(self) -> None:
        check_number("GrowingGradient: factor", self.factor, above=1)
        check_number("GrowingGradient: throws", self.throws, above=0)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found, usual = told(alerts, "exploding"), usual_norm(history)
        worst = max(found, key=lambda alert: alert.value, default=None)
        if worst is None or len(history) < NORMAL_STEPS or not worst.value > 3 * self.factor * usual:
            return None
        where = f" of {called(worst.layer)}" if worst.layer else ""
        return Diagnosis(
            "growing_gradient",
            confidence=0.2 if largest_update(history) > self.throws else 0.4,
            layers=layers_of(found),
            evidence=(
                f"the gradient norm{where} is {worst.value:.2g}, {worst.value / usual:.2g} times the median total norm "
                f"of {usual:.2g}",
            ),
            remedy=clip_at(history, self.factor),
            change="clipping",
        )
