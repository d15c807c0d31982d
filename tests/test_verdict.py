from __future__ import annotations

import pytest

from gradwatch import Alert, History, Severity
from gradwatch.verdict import judge, name_layers

HISTORY = History.from_grad_norms(a=[1.0] * 3, b=[1.0] * 3)


def alert(rule: str, severity: Severity, layer: str | None = "a") -> Alert:
    return Alert(1, rule, layer, severity, 1.0, 2.0, f"{layer}: {rule}")


def test_a_run_without_alerts_is_healthy() -> None:
    assert judge(HISTORY, [], {}) == ("healthy: 3 steps, 2 layers, no alert", Severity.INFO)


def test_what_is_going_on_comes_worst_first() -> None:
    alerts = [alert("dead", Severity.WARNING), alert("nonfinite", Severity.ERROR)]
    verdict, severity = judge(HISTORY, alerts, {"dead": ("a",), "nonfinite": ("a", "b")})
    assert verdict == "nonfinite: a, b (2 of 2 layers); dead: a (1 of 2 layers)"
    assert severity is Severity.ERROR


def test_what_is_over_does_not_make_a_run_ill() -> None:
    alerts = [alert("spike", Severity.WARNING)] * 2 + [alert("nonfinite", s) for s in (Severity.ERROR, Severity.INFO)]
    verdict, severity = judge(HISTORY, alerts, {})
    assert verdict == "healthy now: 3 steps, 2 layers; earlier alerts: 2 x spike, 1 x nonfinite"
    assert severity is Severity.INFO


def test_a_past_error_of_another_rule_is_not_the_severity_now() -> None:
    alerts = [alert("nonfinite", Severity.ERROR), alert("dead", Severity.WARNING)]
    assert judge(HISTORY, alerts, {"dead": ("a",)})[1] is Severity.WARNING


def test_recoveries_alone_are_no_earlier_alerts() -> None:
    assert judge(HISTORY, [alert("dead", Severity.INFO)], {})[0].endswith("no alert")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "the whole model"),
        (["a"], "a (1 of 9 layers)"),
        (["a", "b", "c"], "a, b, c (3 of 9 layers)"),
        (["a", "b", "c", "d"], "a, b, c, ... (4 of 9 layers)"),
    ],
)
def test_layers_in_words(names: list[str], expected: str) -> None:
    assert name_layers(names, of=9) == expected
