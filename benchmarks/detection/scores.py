"""Scores: how well a detector tells faulty programs from healthy ones, how early, and whether it says what is wrong."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.detection.recording import Recording
from benchmarks.detection.statistics import wilson

WHOLE_RUN = 1.0
CUTS = (WHOLE_RUN, 0.1, 0.05)
"""Shares of a run that a detector has seen when it is asked."""

ERROR = "error"


class Finding(Protocol):
    """What a detector says: when, what, how bad ("error" or "warning") and where."""

    @property
    def step(self) -> int: ...
    @property
    def symptom(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def layer(self) -> str | None: ...


@dataclass(frozen=True)
class Case:
    """One program and what one detector found in its run.

    Args:
        family: of the program.
        faulty: as labelled.
        symptom: what theory says is wrong with it; "" for a healthy one.
        steps: of the whole run, as planned.
        recorded: steps that were done, fewer where the run broke down.
        findings: all that the detector found, in any order.
    """

    family: str
    faulty: bool
    symptom: str
    steps: int
    recorded: int
    findings: Sequence[Finding]

    def seen(self, cut: float, severities: Iterable[str] = (ERROR,)) -> list[Finding]:
        """The findings of these severities in the first ``cut`` of the run, oldest first."""
        end = steps_seen(self.steps, cut)
        return sorted((f for f in self.findings if f.step < end and f.severity in severities), key=lambda f: f.step)


def steps_seen(steps: int, cut: float) -> int:
    """The number of steps in the first ``cut`` of a run.

    >>> steps_seen(300, 0.05), steps_seen(310, 0.05)
    (15, 16)
    """
    return math.ceil(round(steps * cut, 9))


@dataclass(frozen=True)
class Share:
    """A share of programs, with its 95% Wilson interval; NaN of none."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.count, self.total)


@dataclass(frozen=True)
class Score:
    """A detector at one cut. A program is flagged when there is at least one finding of the severities that count.

    Args:
        precision: faulty ones among the flagged.
        recall: flagged ones among the faulty.
        false_positives: flagged ones among the healthy.
        right_symptom: of the faulty ones flagged, those of which the right symptom was named.
        only_right_symptom: of the same, those of which nothing else was named.
        first_alert: median step of the first finding in the faulty programs flagged; NaN of none.
        first_alert_share: the same as a share of the run.
        false_alarms: findings in healthy runs, for 1,000 of their steps.
    """

    precision: Share
    recall: Share
    false_positives: Share
    right_symptom: Share
    only_right_symptom: Share
    first_alert: float
    first_alert_share: float
    false_alarms: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""
        wrong = self.false_positives.count + self.recall.total - self.recall.count
        return 2 * self.recall.count / (2 * self.recall.count + wrong) if self.recall.total else math.nan


def score(cases: Iterable[Case], cut: float = WHOLE_RUN, severities: Iterable[str] = (ERROR,)) -> Score:
    """The scores over all programs."""
    severities = tuple(severities)
    seen = [(case, case.seen(cut, severities)) for case in cases]
    caught = [(case, found) for case, found in seen if case.faulty and found]
    healthy = [(case, found) for case, found in seen if not case.faulty]
    false = sum(bool(found) for _, found in healthy)
    named = [(case.symptom, {f.symptom for f in found}) for case, found in caught]
    healthy_steps = sum(min(case.recorded, steps_seen(case.steps, cut)) for case, _ in healthy)
    return Score(
        precision=Share(len(caught), len(caught) + false),
        recall=Share(len(caught), len(seen) - len(healthy)),
        false_positives=Share(false, len(healthy)),
        right_symptom=Share(sum(symptom in names for symptom, names in named), len(named)),
        only_right_symptom=Share(sum({symptom} == names for symptom, names in named), len(named)),
        first_alert=_median(found[0].step for _, found in caught),
        first_alert_share=_median(found[0].step / case.steps for case, found in caught),
        false_alarms=1000 * sum(len(found) for _, found in healthy) / healthy_steps if healthy_steps else math.nan,
    )


def by_family(cases: Iterable[Case], severities: Iterable[str] = (ERROR,)) -> dict[str, Share]:
    """The share of each family's programs that is flagged in the whole run: to be high but for "healthy"."""
    severities = tuple(severities)
    flagged: dict[str, list[bool]] = {}
    for case in cases:
        flagged.setdefault(case.family, []).append(bool(case.seen(WHOLE_RUN, severities)))
    return {family: Share(sum(found), len(found)) for family, found in flagged.items()}


# --- rows that show what a score is worth ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Flag:
    """A finding that names no symptom."""

    step: int
    symptom: str = ""
    severity: str = ERROR
    layer: str | None = None


def flag_everything(recording: Recording, cut: float) -> list[Flag]:
    """What is flagged without looking."""
    return [Flag(0)]


PATIENCE = 0.3
"""The share of a run after which a run that has learned nothing is flagged by its accuracy."""

LEAST_GAIN = 0.1


def accuracy_only(recording: Recording, cut: float) -> list[Flag]:
    """Flags a run whose training metric has never been LEAST_GAIN above the trivial predictor's.

    It is asked at ``cut``, but not after PATIENCE of the run. It knows the labels, which a gradient monitor does not,
    and so it shows what there is to win: to be earlier, and to say what is wrong.
    """
    end = steps_seen(recording.planned_steps, min(cut, PATIENCE))
    values = recording.metric[recording.metric_steps <= end]
    # Only a finite value can be above: a metric of NaN is no sign of learning.
    return [] if (values > recording.trivial + LEAST_GAIN).any() else [Flag(end - 1)]


SANITY: Mapping[str, Callable[[Recording, float], list[Flag]]] = {
    "flag everything": flag_everything,
    "accuracy only": accuracy_only,
}
"""They are asked anew at each cut."""


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return float(statistics.median(found)) if found else math.nan
