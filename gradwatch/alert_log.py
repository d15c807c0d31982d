"""AlertLog: every alert so far, each finding once, and what is still going on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from gradwatch.protocols import Rule
from gradwatch.records import Alert, Severity, from_state, to_state
from gradwatch.rules.base import LayerRule, StepRule
from gradwatch.told import Told

RELATED = 1000
"""Steps up to which one finding may come of another."""


class AlertLog:
    """Keeps alerts, and drops those that a rule only repeats from the step before: they are one episode.

    Rules built on :class:`~gradwatch.rules.LayerRule` report each episode once by themselves.
    """

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        """Oldest first."""
        self.worst: dict[str, Severity] = {}
        """The worst severity that each rule has reported."""
        self._repeated: set[tuple[str, tuple[str, ...], Severity]] = set()
        self._origins: dict[str, int] = {}
        """The step of each rule's latest alert that others may come of."""
        self._told = Told()

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of findings of each rule."""
        return self._told.counts

    def take(self, found: Iterable[tuple[Rule, list[Alert]]]) -> list[Alert]:
        """Take in what the rules found at one step. Returns what is new."""
        before, self._repeated = self._repeated, set()
        new = []
        for rule, alerts in found:
            for alert in alerts:
                if not isinstance(rule, LayerRule):
                    key = (alert.rule, alert.concerned, alert.severity)
                    self._repeated.add(key)
                    if key in before:
                        continue
                alert = self._related(alert, getattr(rule, "follows", ()))
                if alert.severity >= getattr(rule, "others_follow", Severity.ERROR):
                    self._origins[alert.rule] = alert.step
                new.append(self._add(alert))
        return new

    def ongoing(self, rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
        """The layers of each rule's open episodes; () where an alert concerns no single layer."""
        layers: dict[str, list[str]] = {}
        if not self.worst:  # nothing was ever told
            return {}
        for rule, concerned, severity in sorted(self._repeated):
            if severity > Severity.INFO:
                layers.setdefault(rule, []).extend(concerned)
        for own in rules:
            told = getattr(own, "name", None) in self.worst  # asking all of them at each step costs as much as a rule
            if told and isinstance(own, StepRule) and (names := own.open_layers) is not None:
                layers[own.name] = list(names)
        return {rule: tuple(names) for rule, names in layers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain types that :meth:`load_state_dict` takes back."""
        alerts = [{**to_state(alert), "severity": int(alert.severity)} for alert in self.alerts]
        repeated = [(rule, list(layers), int(severity)) for rule, layers, severity in self._repeated]
        return {"alerts": alerts, "repeated": repeated, "origins": dict(self._origins)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.alerts.clear()
        self.worst.clear()
        self._told = Told()
        for alert in state["alerts"]:
            self._add(from_state(Alert, {**alert, "severity": Severity(alert["severity"])}))
        self._origins = dict(state["origins"])
        self._repeated = {(rule, tuple(layers), Severity(severity)) for rule, layers, severity in state["repeated"]}

    def _related(self, alert: Alert, follows: Iterable[str]) -> Alert:
        """``alert`` with the rule, of ``follows``, whose finding it may come of: the latest one's, or its warning's."""
        if alert.severity is Severity.INFO:
            return alert
        if (warning := self._told.warning_of(alert)) is not None:
            return dataclasses.replace(alert, follows=warning.follows)
        earlier = [rule for rule in follows if self._origins.get(rule, -math.inf) > alert.step - RELATED]
        return dataclasses.replace(alert, follows=max(earlier, key=self._origins.__getitem__)) if earlier else alert

    def _add(self, alert: Alert) -> Alert:
        self._told.add(alert)
        self.alerts.append(alert)
        if alert.severity > Severity.INFO:
            self.worst[alert.rule] = max(alert.severity, self.worst.get(alert.rule, alert.severity))
        return alert
