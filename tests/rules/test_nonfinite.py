from __future__ import annotations

import pytest

from gradwatch import History, Severity
from gradwatch.rules import NonFinite
from tests.histories import INF, NAN, history_of, layers


@pytest.mark.parametrize(("value", "word"), [(NAN, "nan"), (INF, "inf")])
def test_one_alert_and_one_recovery(value: float, word: str) -> None:
    found = NonFinite().check(History.from_grad_norms(a=[1.0] * 5 + [value] * 3 + [2.0] * 5, b=[1.0] * 13))
    assert [(a.step, a.layer, a.severity) for a in found] == [(5, "a", Severity.ERROR), (10, "a", Severity.INFO)]
    assert found[0].message == f"a: gradient is {word}"
    assert found[1].message == "a: recovered from nonfinite after 5 steps, gradient norm now 2"
    assert str(found[0].value) == word
    assert found[0].threshold == INF


def test_the_layers_of_one_step_make_one_alert() -> None:
    (alert,) = NonFinite().check(history_of([layers([1.0] * 5), layers([NAN] * 4 + [1.0])]))
    assert alert.layer is None
    assert alert.layers == ("fc0", "fc1", "fc2", "fc3")
    assert alert.message == "fc3, fc2, fc1 and 1 more layer: gradient is nan"  # the output's first: there it began


def test_no_gradient_is_not_nonfinite() -> None:
    assert NonFinite().check(History.from_grad_norms(a=[None] * 10)) == []


def test_no_gradient_does_not_end_an_episode() -> None:
    rule = NonFinite()
    found = rule.check(History.from_grad_norms(a=[NAN, None, None, NAN, 1.0, 1.0, 1.0]))
    assert [(a.step, a.severity) for a in found] == [(0, Severity.ERROR), (6, Severity.INFO)]


def test_patience_waits_for_steps_in_a_row() -> None:
    rule = NonFinite(patience=2)
    found = rule.check(History.from_grad_norms(a=[NAN, 1.0, NAN, 1.0, NAN, NAN]))
    assert [a.step for a in found] == [5]
    assert rule.open_layers == ("a",)


def test_a_layer_that_left_is_no_longer_open() -> None:
    rule, history = NonFinite(), history_of([layers([1.0, NAN])])
    rule.check(history)
    assert rule.open_layers == ("fc1",)
    history.append(history_of([{"fc0": 1.0}]).up_to(1).latest)  # type: ignore[arg-type]
    rule.check(history)
    assert rule.open_layers is None


def test_nan_at_every_other_step_is_one_episode() -> None:
    found = NonFinite().check(History.from_grad_norms(a=[1.0, NAN] * 10 + [1.0] * 5))
    assert [(a.step, a.severity) for a in found] == [(1, Severity.ERROR), (22, Severity.INFO)]
