"""Verdicts: what a run is said to be, written when it changes and now and then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gradwatch.records import Diagnosis, Report, Severity
from gradwatch.sinks.counts import Counts


class Said(NamedTuple):
    """A verdict, the first step of the run or since it was resumed, and the step it was true of."""

    began: int
    step: int
    verdict: str
    severity: Severity
    captured: str


class Verdicts:
    """Tells when the verdict must be written for a reader to know it, also of a run that was killed.

    That is at the first step, when there are alerts or causes, when its severity changes, and every ``Counts.EVERY``
    steps if its words do, as of a healthy run, whose steps they count. All causes so far go with it, each as it was
    found last: whatever sample of the verdicts is kept, the last of them says all. What a probed step tells takes the
    place of what was guessed since the one before.

    Example:
        >>> from gradwatch.history import History
        >>> verdicts, stats = Verdicts(), History.from_grad_norms(fc=[1.0]).latest
        >>> [len(verdicts.due(Report(text, 0, stats=stats))) for text in ("1 step", "2 steps", "3 steps")]
        [1, 0, 0]
        >>> verdicts.last()[0]["verdict"]
        '3 steps'
    """

    def __init__(self) -> None:
        self._causes: dict[str, Diagnosis] = {}
        self._guessed: set[str] = set()
        """The causes found without a probe since there was one."""
        self._latest: Said | None = None
        self._written: Said | None = None

    def due(self, report: Report) -> list[dict[str, Any]]:
        """What to write at the step of ``report``: one verdict or none."""
        assert report.stats is not None
        if report.diagnoses:
            self._take(report.diagnoses, probed=report.profile is not None)
        before, step = self._written, report.stats.step
        began = self._latest.began if self._latest else step
        self._latest = now = Said(began, step, report.verdict, report.severity, report.stats.captured)
        changed = before is None or now.severity != before.severity
        again = before is not None and now.step // Counts.EVERY != before.step // Counts.EVERY
        if changed or report.alerts or report.diagnoses or (again and before and now.verdict != before.verdict):
            return self._write()
        return []

    def last(self) -> list[dict[str, Any]]:
        """What is left to write at the end: one verdict or none."""
        if self._latest is None or (self._written and self._latest.verdict == self._written.verdict):
            return []
        return self._write()

    def _take(self, diagnoses: Iterable[Diagnosis], probed: bool) -> None:
        found = {diagnosis.cause: diagnosis for diagnosis in diagnoses}
        if probed:
            self._causes = {cause: d for cause, d in self._causes.items() if cause not in self._guessed}
        self._guessed = set() if probed else self._guessed | found.keys()
        self._causes.update(found)

    def _write(self) -> list[dict[str, Any]]:
        assert self._latest is not None
        self._written = self._latest
        return [{**self._latest._asdict(), "diagnoses": [*self._causes.values()]}]
