"""Rota: which rules are asked at which step. In a normal one that is nearly none of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from gradwatch.coming import Coming
from gradwatch.faults import DROPPED, Faults, part_of
from gradwatch.history import History
from gradwatch.protocols import Rule
from gradwatch.records import Alert

T = TypeVar("T")


class Rota:
    """Has every rule check each step, but for the calm ones that it passes over by a look at several of them at once.

    Args:
        rules: one that fails is taken out of it.
        faults: runs them.

    Example:
        >>> import numpy as np
        >>> from gradwatch.records import StepStats
        >>> from gradwatch.rules import NonFinite
        >>> history, rota = History(), Rota([NonFinite()], Faults(strict=True))
        >>> stats = [
        ...     StepStats(step, ("fc",), np.array([norm]), np.ones(1, bool), norm)
        ...     for step, norm in enumerate([1.0, 2.0, float("nan")])
        ... ]
        >>> rota.plan(history, Coming.of(stats, count=0))
        >>> for step in stats:
        ...     history.append(step)
        ...     print([alert.message for _, alerts in rota.check(history) for alert in alerts])
        []
        []
        ['fc: gradient is nan']
    """

    def __init__(self, rules: list[Rule], faults: Faults) -> None:
        self._rules, self._faults = rules, faults
        self._coming: Coming | None = None
        self._due: dict[int, list[tuple[int, Rule]]] = defaultdict(list)
        """Rules with their places, by the number of steps that the history will have taken in when they are asked."""

    def plan(self, history: History, coming: Coming | None) -> None:
        """Before ``history`` takes in the ``coming`` steps; None for a single one of which more than norms is known."""
        self._coming = coming
        self._due.clear()
        for place, rule in enumerate(tuple(self._rules)):
            self._put(place, rule, history, coming)

    def check(self, history: History) -> list[tuple[Rule, list[Alert]]]:
        """What is found in the latest step, in the rules' order."""
        found, coming = [], None
        for place, rule in sorted(self._due.pop(history.count, ())):
            alerts = self._run(rule, _checked, rule, history)
            if alerts:
                found.append((rule, alerts))
            if alerts is not None and self._coming is not None:
                coming = coming or self._coming.after(history.count)
                self._put(place, rule, history, coming)
        return found

    def _put(self, place: int, rule: Rule, history: History, coming: Coming | None) -> None:
        """Ask at the next step that ``rule`` does not pass over."""
        calm: int | None = 0
        if coming and hasattr(rule, "passes_over"):  # a rule of the user's own need not have it
            calm = self._run(rule, rule.passes_over, history, coming)
        if calm is not None:
            self._due[history.count + 1 + calm].append((place, rule))

    def _run(self, rule: Rule, action: Callable[..., T], *args: object) -> T | None:
        """What ``action`` gives, None where it fails."""
        result = self._faults.run(part_of("rule", type(rule)), DROPPED, action, *args, otherwise=None)
        if result is None:
            self._rules.remove(rule)
        return result


def _checked(rule: Rule, history: History) -> list[Alert]:
    """What ``rule`` finds. It may be a generator, which fails only when it is run through."""
    alerts = list(rule.check(history))
    for alert in alerts:
        if not isinstance(alert, Alert):
            raise TypeError(f"check() must give Alerts, got {alert!r}")
    return alerts
