"""gradwatch's own rules with their defaults, replayed over a recording."""

from __future__ import annotations

import gradwatch as gw
from benchmarks.detection.detectors.finding import Finding
from benchmarks.detection.recording import Recording
from gradwatch.alert_log import AlertLog
from gradwatch.history import History

SYMPTOMS = {"spike": "unstable", "update_ratio": "unstable", "skipped": "overflow", "flat_output": "saturated"}
"""What a rule's alert says is wrong, where that is not the rule's own name."""


def detect(recording: Recording) -> list[Finding]:
    """The alerts that a Monitor with default settings would have given, without recoveries and consequences.

    An alert is found at the step at which it is given, which may be some steps after the one that it names.
    """
    history, log, rules = History(), AlertLog(), gw.rules.default()
    findings = []
    origins: dict[str, str] = {}
    told: dict[str, gw.Severity] = {}
    for stats in recording.stats():
        history.append(stats)
        new = log.take([(rule, list(rule.check(history))) for rule in rules])
        for alert in (a for a in new if a.severity > gw.Severity.INFO):
            origin = origins[alert.rule] = origins.get(alert.follows, alert.rule)
            # A consequence is counted where it is worse than what it came of, and says so of that.
            if alert.severity > (told.get(origin, gw.Severity.INFO) if alert.follows else gw.Severity.INFO):
                name = SYMPTOMS.get(origin, origin)
                findings.append(Finding(stats.step, name, alert.severity.name.lower(), alert.layer))
                told[origin] = max(alert.severity, told.get(origin, alert.severity))
    return findings
