"""Each finding once, and what is going on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradwatch import Alert, History, Severity
from gradwatch.alert_log import RELATED, AlertLog
from gradwatch.rules import Dead, NonFinite, default
from tests.histories import history_of, stats


def alert(rule: str, severity: Severity = Severity.WARNING, layer: str | None = "a") -> Alert:
    return Alert(1, rule, layer, severity, 1.0, 2.0, f"{layer}: {rule}")


class Own:
    """A user's rule, whose own words are its own affair."""

    open_layers = ("c",)

    def check(self, history: History) -> list[Alert]:
        return []


OWN, DEAD = Own(), Dead()


def test_a_repeated_finding_is_one_until_it_stops() -> None:
    log = AlertLog()
    found = [len(log.take([(OWN, [alert("own")] if bad else [])])) for bad in (1, 1, 0, 1, 1)]
    assert found == [1, 0, 0, 1, 0]


def test_what_goes_on_in_several_layers_is_told_of_these() -> None:
    """And not of the whole model; also after a checkpoint."""
    log, again = AlertLog(), AlertLog()
    log.take([(OWN, [replace(alert("own", layer=None), layers=("a", "b"))])])
    again.load_state_dict(log.state_dict())
    assert log.ongoing(()) == again.ongoing(()) == {"own": ("a", "b")}


def test_information_is_not_repeated_either() -> None:
    log = AlertLog()
    assert [len(log.take([(OWN, [alert("own", Severity.INFO)])])) for _ in range(3)] == [1, 0, 0]
    assert log.counts == {}


def test_a_rule_with_episodes_is_taken_at_its_word() -> None:
    log = AlertLog()
    assert [len(log.take([(DEAD, [alert("dead", layer=None)])])) for _ in range(2)] == [1, 1]


def test_counts_and_worst_leave_recoveries_out() -> None:
    log = AlertLog()
    log.take([(DEAD, [alert("dead"), alert("dead", Severity.INFO), alert("dead", Severity.ERROR)])])
    assert (dict(log.counts), log.worst) == ({"dead": 2}, {"dead": Severity.ERROR})


def test_a_warning_that_becomes_an_error_is_one_and_comes_of_what_it_came_of() -> None:
    log = AlertLog()
    log.take([(OWN, [alert("exploding", Severity.ERROR)]), (DEAD, [alert("dead"), alert("dead", layer="b")])])
    log.take([(OWN, [Alert(2, "saturated", "a", Severity.ERROR, 1.0, 2.0, "")])])
    (raised,) = log.take([(DEAD, [alert("dead", Severity.ERROR)])])
    assert (raised.follows, log.counts["dead"], log.worst["dead"]) == ("exploding", 2, Severity.ERROR)
    (other,) = log.take([(DEAD, [alert("dead", Severity.ERROR, layer="c")])])
    assert (other.follows, log.counts["dead"]) == ("saturated", 3)


def test_of_a_raised_group_and_after_a_recovery_or_a_checkpoint() -> None:
    def group(severity: Severity, *names: str) -> Alert:
        return Alert(3, "stalled", None, severity, float("nan"), 0.0, "", layers=names)

    long, log = "x" * 300, AlertLog()
    log.take([(DEAD, [group(Severity.WARNING, "a", long)])])
    loaded = AlertLog()
    loaded.load_state_dict(log.state_dict())
    for one in (log, loaded):
        one.take([(DEAD, [group(Severity.ERROR, long)])])
        assert one.counts["stalled"] == 1
        one.take([(DEAD, [group(Severity.INFO, "a", long), group(Severity.ERROR, "a")])])
        assert one.counts["stalled"] == 2


def test_what_is_going_on() -> None:
    log, rule = AlertLog(), NonFinite()
    own = [alert("own", layer=None), alert("own", layer="b"), alert("calm", Severity.INFO)]
    log.take([(rule, rule.check(History.from_grad_norms(a=[1.0, float("nan")], b=[1.0, 1.0]))), (OWN, own)])
    assert log.ongoing([rule, OWN]) == {"own": ("b",), "nonfinite": ("a",)}


def test_state_goes_on_and_holds_plain_types() -> None:
    log = AlertLog()
    numpy_alert = Alert(np.int64(3), "own", "a", Severity.WARNING, np.float64(1.5), np.float32(2.0), "a")
    log.take([(OWN, [numpy_alert])])
    state = log.state_dict()
    assert {type(value) for value in state["alerts"][0].values()} == {int, str, float, list}
    again = AlertLog()
    again.load_state_dict(state)
    assert again.alerts == log.alerts
    assert (again.counts, again.worst) == (log.counts, log.worst)
    assert again.take([(OWN, [alert("own")])]) == []


def error(step: int, rule: str, severity: Severity = Severity.ERROR) -> Alert:
    return Alert(step, rule, "fc", severity, 1.0, 0.5, f"fc: {rule}")


def followed(log: AlertLog, *alerts: Alert) -> list[str]:
    """What each of the alerts of one step is said to follow from."""
    own = {rule.name: rule for rule in default()}  # type: ignore[attr-defined]
    return [log.take([(own[alert.rule], [alert])])[0].follows for alert in alerts]


def test_an_alert_names_the_one_that_it_may_come_of() -> None:
    log = AlertLog()
    assert followed(log, error(1, "exploding"), error(1, "update_ratio")) == ["", "exploding"]
    assert followed(log, error(3, "nonfinite"), error(3, "dead"), error(3, "underflow")) == [
        "exploding",
        "exploding",
        "",
    ]


def test_what_comes_of_a_step_that_was_too_large_and_may_settle() -> None:
    """Of other rules a WARNING is no origin."""
    log = AlertLog()
    followed(log, error(1, "update_ratio", Severity.WARNING), error(1, "saturated", Severity.WARNING))
    assert followed(log, error(3, "dead"), error(4, "vanishing_in_time")) == ["update_ratio", "dead"]


def test_what_is_not_finite_at_the_step_of_an_explosion_comes_of_it() -> None:
    """One step has thrown the weights off, and the gradients after it are the first that are not finite."""
    history = history_of([{"fc": 1e3, "out": 1.0}])
    history.append(stats(1, {"fc": float("nan"), "out": 1.0}, total_update=9.0))
    log = AlertLog()
    found = log.take([(rule, list(rule.check(history))) for rule in default()])
    assert [(a.rule, a.follows) for a in found] == [("exploding", ""), ("nonfinite", "exploding")]


def test_neither_warnings_nor_what_is_long_ago_nor_a_recovery() -> None:
    log = AlertLog()
    assert followed(log, error(1, "exploding", Severity.WARNING)) == [""]
    assert followed(log, error(2, "nonfinite")) == [""]
    assert followed(log, error(5, "exploding")) == [""]
    assert followed(log, error(6, "nonfinite", Severity.INFO)) == [""]
    assert followed(log, error(5 + RELATED - 1, "dead")) == ["exploding"]
    assert followed(log, error(5 + RELATED, "vanishing")) == ["dead"]


def test_what_came_before_survives_a_checkpoint() -> None:
    log, again = AlertLog(), AlertLog()
    followed(log, error(1, "update_ratio"))
    again.load_state_dict(log.state_dict())
    assert followed(again, error(9, "exploding")) == ["update_ratio"]
