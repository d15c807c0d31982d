"""Which steps are probed: at most a few, and what they showed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from gradwatch.graph import Stranger
from gradwatch.layers import LayerTable
from gradwatch.probing import Probe
from gradwatch.profile import BackwardProfile
from gradwatch.recording import FAILED
from gradwatch.records import Alert, Severity

EARLY = 1
"""Recorded steps before the one that is probed in every run, so that a healthy one knows its margins too. Not 0: a
model that is compiled with hooks in place is compiled once more when they are gone."""

AGAIN = 1000
"""Steps after which an alert of a rule is worth another look, when one of the same rule and severity has had one."""

FOR_NONFINITE = frozenset({"nonfinite", "overflow"})
"""Rules whose alerts ask where NaN and inf came from."""

SHARDED = "the model is sharded: no rank sees a whole backward pass, so no step is probed"


class Probed(NamedTuple):
    """A profile, and the alerts that it was made for."""

    profile: BackwardProfile
    alerts: tuple[Alert, ...] = ()


class ProbeSchedule:
    """Arms the probe for the step after one that asks for it, and takes what it shows.

    Alerts ask for it, once per rule and severity in AGAIN steps; so does the user, and every n-th step. Where the last
    profile could see nothing, as of a compiled model, alerts ask no more.

    Args:
        table: of the model's layers.
        every_n_steps: 0 for never.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        >>> schedule = ProbeSchedule(LayerTable(model))
        >>> schedule.ask()
        >>> schedule.get_ready(turn=1, recorded=0)
        >>> model(torch.ones(3, 2)).sum().backward()
        >>> schedule.take(step=1).profile.depth
        1
    """

    def __init__(self, table: LayerTable, every_n_steps: int = 0) -> None:
        self.last: Probed | None = None
        """What was seen last."""
        self.strangers: tuple[Stranger, ...] | None = None
        """The parameters that the step probed last used and that are none of the model's; None before there was one."""
        self._table = table
        self._every_n_steps = every_n_steps
        self._asked = self._off = self._begun = False
        self._alerts: list[Alert] = []
        """Those that ask."""
        self._had: dict[tuple[str, Severity], int] = {}
        """By rule and severity, the step of the alert that asked last."""
        self._probe: Probe | None = None

    def ask(self) -> None:
        """The coming step is to be probed."""
        self._asked = True

    def consider(self, alerts: Iterable[Alert]) -> None:
        """The coming step is to be probed where ``alerts``, which are new, are worth it."""
        if self._off or (self.last is not None and not self.last.profile.segments and self.last.profile.notes):
            return
        asking = [a for a in alerts if a.step >= self._had.get((a.rule, a.severity), a.step - AGAIN) + AGAIN]
        self._alerts += asking
        self._had.update({(a.rule, a.severity): a.step for a in asking})

    def get_ready(self, turn: int, recorded: int) -> None:
        """Arm the probe before the forward pass of a step, where it is due.

        Args:
            turn: the number of that step that ``every_n_steps`` counts.
            recorded: steps so far.
        """
        periodic = self._every_n_steps and turn % self._every_n_steps == 0
        first = recorded >= EARLY and not self._begun  # of a run, or of what is resumed
        due = self._asked or self._alerts or periodic or first
        self._asked = False
        if not due or self._off or self._probe is not None:
            return
        self._begun = True
        model = self._table.model()
        if self._table.sharding is not None:
            self._alerts, self.last = [], Probed(BackwardProfile(notes=(SHARDED,)))
        elif model is not None:
            self._probe = Probe(model, nonfinite=any(alert.rule in FOR_NONFINITE for alert in self._alerts))
            self._probe.arm()

    def take(self, step: int) -> Probed | None:
        """What was seen of ``step``, from the device it is on; None where it was not probed, or had no gradient.

        Raises:
            RuntimeError: when something went wrong while it was looked at.
        """
        if self._probe is None:
            return None
        probe, self._probe, alerts, self._alerts = self._probe, None, tuple(self._alerts), []
        profile, self.strangers = probe.take(), probe.strangers
        if profile is None:
            return None
        for note in profile.notes:
            if note.startswith(FAILED):
                raise RuntimeError(note)
        self.last = Probed(replace(profile, step=step), alerts)
        return self.last

    def of(self, alerts: Iterable[Alert]) -> BackwardProfile | None:
        """The last profile, where it was made for earlier alerts of the same rules and is not too old."""
        if self.last is None:
            return None
        profile, rules = self.last.profile, {alert.rule for alert in self.last.alerts}
        fits = all(alert.rule in rules and alert.step < profile.step + AGAIN for alert in alerts)
        return profile if fits else None

    def switch_off(self) -> None:
        """Probe no more; the hooks come off the model."""
        self._off = True
        if self._probe is not None:
            self._probe.close()
            self._probe = None
