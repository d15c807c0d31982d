"""Verdicts: what a run is said to be, written when it changes and now and then."""

from __future__ import annotations

from typing import Any, NamedTuple

from gradwatch.records import Diagnosis, Report, Severity
from gradwatch.sinks.counts import Counts


class Said(NamedTuple):
    """A verdict, and the step it was true of."""

    step: int
    verdict: str
    severity: Severity
    captured: str


class Verdicts:
    """Tells when the verdict must be written for a reader to know it, also of a run that was killed.

    That is at the first step, when there are alerts or causes, when its severity changes, and every ``Counts.EVERY``
    steps if its words do, as of a healthy run, whose steps they count. All causes so far go with it, each as it was
    found last: whatever sample of the verdicts is kept, the last of them says all.

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
        self._latest: Said | None = None
        self._written: Said | None = None

    def due(self, report: Report) -> list[dict[str, Any]]:
        """What to write at the step of ``report``: one verdict or none."""
        assert report.stats is not None
        self._causes.update({diagnosis.cause: diagnosis for diagnosis in report.diagnoses})
        before = self._written
        self._latest = now = Said(report.stats.step, report.verdict, report.severity, report.stats.captured)
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

    def _write(self) -> list[dict[str, Any]]:
        assert self._latest is not None
        self._written = self._latest
        return [{**self._latest._asdict(), "diagnoses": [*self._causes.values()]}]
