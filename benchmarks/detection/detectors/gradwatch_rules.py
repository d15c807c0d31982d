"""gradwatch's own rules with their defaults, replayed over a recording."""

from __future__ import annotations

import gradwatch as gw
from benchmarks.detection.detectors.finding import Finding
from benchmarks.detection.recording import Recording
from gradwatch.history import History

SYMPTOMS = {
    "spike": "unstable",
    "update_ratio": "unstable",
    "skipped": "overflow",
    "clipped": "exploding",
}
"""What a rule's alert says is wrong, where that is not the rule's own name."""


def detect(recording: Recording) -> list[Finding]:
    """The alerts that a Monitor with default settings would have given; no recoveries."""
    history = History()
    rules = gw.rules.default()
    findings = []
    for stats in recording.stats():
        history.append(stats)
        for rule in rules:
            findings += [_finding(alert) for alert in rule.check(history) if alert.severity > gw.Severity.INFO]
    return findings


def _finding(alert: gw.Alert) -> Finding:
    return Finding(alert.step, SYMPTOMS.get(alert.rule, alert.rule), alert.severity.name.lower(), alert.layer)
