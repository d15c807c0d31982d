"""Rota: who is asked when, and what becomes of a rule that fails."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest

from gradwatch import Alert, History, Severity
from gradwatch.coming import Coming
from gradwatch.faults import Faults, GradwatchWarning
from gradwatch.rota import Rota
from gradwatch.rules import Rule
from tests.histories import layers, stats

STEPS = [stats(i, layers([1.0])) for i in range(6)]


class Scripted:
    """Passes over so many steps at each time that it is asked, and tells of every one that it checks."""

    def __init__(self, name: str, *calm: int) -> None:
        self.name, self.calm = name, list(calm)

    def passes_over(self, history: History, coming: Coming) -> int:
        assert history.count == coming.count
        return min(self.calm.pop(0), len(coming)) if self.calm else 0

    def check(self, history: History) -> list[Alert]:
        return [Alert(history.count, self.name, None, Severity.INFO, 0.0, 0.0, "")]


class Simple:
    """A rule as simple as a user may write it."""

    def check(self, history: History) -> list[Alert]:
        return [Alert(history.count, "simple", None, Severity.INFO, 0.0, 0.0, "")]


def told(rules: Sequence[Rule], known: bool = False, strict: bool = True) -> list[list[str]]:
    """Who tells something at each step."""
    rota, history = Rota(list(rules), Faults(strict)), History()
    if not known:
        rota.plan(history, Coming.of(STEPS, 0))
    found = []
    for step in STEPS:
        if known:
            rota.plan(history, None)
        history.append(step)
        found.append([alert.rule for _, alerts in rota.check(history) for alert in alerts])
        assert all(alert.step == history.count for _, alerts in rota.check(history) for alert in alerts)
    return found


def test_each_is_asked_at_the_steps_that_it_does_not_pass_over() -> None:
    assert told([Scripted("a", 2, 1), Scripted("b", 6)]) == [[], [], ["a"], [], ["a"], ["a"]]


def test_findings_of_a_step_are_in_the_rules_order() -> None:
    late, early, always = Scripted("late", 2, 2), Scripted("early", 0, 0), Simple()
    assert told([early, late, always])[2] == ["early", "late", "simple"]
    assert told([always, Scripted("late", 2), Scripted("early", 0, 0)])[2] == ["simple", "late", "early"]


def test_where_more_is_known_all_are_asked() -> None:
    assert told([Scripted("a", 6), Simple()], known=True) == [["a", "simple"]] * 6


class Broken(Scripted):
    def check(self, history: History) -> list[Alert]:
        raise ValueError("broken")


class BrokenLook(Scripted):
    def passes_over(self, history: History, coming: Coming) -> int:
        raise ValueError("broken")


class Wrong(Scripted):
    def check(self, history: History) -> list[Alert]:
        return ["alert"]  # type: ignore[list-item]


@pytest.mark.parametrize("kind", [Broken, BrokenLook, Wrong])
def test_a_rule_that_fails_is_dropped_and_the_others_go_on(kind: type[Scripted]) -> None:
    rules = [kind("a", 1), Simple()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rota, history = Rota(rules, Faults(strict=False)), History()
        rota.plan(history, Coming.of(STEPS, 0))
        for step in STEPS:
            history.append(step)
            assert [rule for rule, _ in rota.check(history)] == rules[-1:]
    assert [type(rule) for rule in rules] == [Simple]
    (warning,) = caught
    assert issubclass(warning.category, GradwatchWarning)
    assert f"rule {kind.__name__} failed, it is dropped" in str(warning.message)
