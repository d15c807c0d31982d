"""Told: which alerts are findings of their own, and how many there were."""

from __future__ import annotations

from collections import Counter

from gradwatch.records import Alert, Severity


class Told:
    """What was told last of each rule and layer, by which an episode that is told twice is known.

    >>> from dataclasses import replace
    >>> told, warning = Told(), Alert(3, "dead", "fc", Severity.WARNING, 0.0, 0.0, "zero")
    >>> told.add(warning), told.add(replace(warning, step=9, severity=Severity.ERROR)), told.counts
    (True, False, Counter({'dead': 1}))
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Number of findings of each rule; neither recoveries nor what was a WARNING before are counted."""
        self._last: dict[tuple[str, str | None], Alert] = {}

    def warning_of(self, alert: Alert) -> Alert | None:
        """The open WARNING that ``alert`` makes an ERROR, where it does."""
        before = map(self._last.get, _keys(alert)) if alert.severity is Severity.ERROR else ()
        return next((a for a in before if a is not None and a.severity is Severity.WARNING), None)

    def add(self, alert: Alert) -> bool:
        """Take in an alert that was told. Returns whether it is a finding of its own."""
        is_new = alert.severity > Severity.INFO and self.warning_of(alert) is None
        self._last.update(dict.fromkeys(_keys(alert), alert))
        if is_new:
            self.counts[alert.rule] += 1
        return is_new


def _keys(alert: Alert) -> list[tuple[str, str | None]]:
    return [(alert.rule, name) for name in alert.concerned or (None,)]
