from __future__ import annotations

from gradwatch import History, Severity
from gradwatch.rules import Dead
from tests.histories import history_of, layers

LONG = Dead().patience + Dead().warmup


def test_exactly_zero_for_patience_steps_after_the_warmup() -> None:
    rule = Dead()
    (alert,) = rule.check(History.from_grad_norms(fc=[0.0] * (LONG + 20)))
    assert alert.step == LONG - 1
    assert (alert.severity, alert.value, alert.threshold) == (Severity.WARNING, 0.0, 0.0)
    assert alert.message == f"fc: gradient was exactly zero for {rule.patience} steps"
    assert rule.open_layers == ("fc",)


def test_the_smallest_number_is_not_zero() -> None:
    assert Dead().check(History.from_grad_norms(fc=[5e-324] * 2 * LONG)) == []


def test_one_live_step_starts_the_count_anew() -> None:
    column = [0.0] * (LONG - 1) + [1.0] + [0.0] * (Dead().patience - 1)
    assert Dead().check(History.from_grad_norms(fc=column)) == []


def test_a_layer_without_a_gradient_is_not_dead() -> None:
    assert Dead().check(History.from_grad_norms(fc=[None] * 2 * LONG)) == []


def test_missing_gradients_in_between_count_neither_way() -> None:
    rule = Dead(patience=4, warmup=0)
    (alert,) = rule.check(History.from_grad_norms(fc=[0.0, None, 0.0, None, 0.0, None, 0.0]))
    assert alert.step == 6


def test_a_layer_that_comes_alive_recovers() -> None:
    found = Dead(patience=3, warmup=0).check(History.from_grad_norms(fc=[0.0] * 5 + [1.0] * 3))
    assert [(a.step, a.severity) for a in found] == [(2, Severity.WARNING), (5, Severity.INFO)]


def test_each_layer_by_itself() -> None:
    run = [layers([0.0, 1.0, 0.0]) for _ in range(5)]
    found = Dead(patience=3, warmup=0).check(history_of(run))
    assert [(a.step, a.layer) for a in found] == [(2, "fc0"), (2, "fc2")]
