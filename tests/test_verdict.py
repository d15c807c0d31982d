from __future__ import annotations

import pytest

from gradwatch import History, Severity
from gradwatch.verdict import judge, name_layers

HISTORY = History.from_grad_norms(a=[1.0] * 3, b=[1.0] * 3)


def test_a_run_without_alerts_is_healthy() -> None:
    assert judge(HISTORY, {}, {}, {}) == ("healthy: 3 steps, 2 layers, no alert", Severity.INFO)


def test_what_is_going_on_comes_worst_first() -> None:
    worst = {"dead": Severity.WARNING, "nonfinite": Severity.ERROR}
    ongoing = {"dead": ("a",), "nonfinite": ("a", "b")}
    verdict, severity = judge(HISTORY, ongoing, {"dead": 1, "nonfinite": 1}, worst)
    assert verdict == "nonfinite: a, b (2 of 2 layers); dead: a (1 of 2 layers)"
    assert severity is Severity.ERROR


def test_what_is_over_does_not_make_a_run_ill() -> None:
    worst = {"spike": Severity.WARNING, "nonfinite": Severity.ERROR}
    verdict, severity = judge(HISTORY, {}, {"spike": 2, "nonfinite": 1}, worst)
    assert verdict == "healthy now: 3 steps, 2 layers; earlier alerts: 2 x spike, 1 x nonfinite"
    assert severity is Severity.INFO


def test_a_past_error_of_another_rule_is_not_the_severity_now() -> None:
    worst = {"nonfinite": Severity.ERROR, "dead": Severity.WARNING}
    assert judge(HISTORY, {"dead": ("a",)}, {"nonfinite": 1, "dead": 1}, worst)[1] is Severity.WARNING


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
