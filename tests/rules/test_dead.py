from __future__ import annotations

import numpy as np
import pytest

from gradwatch import History, Severity
from gradwatch.rules import Dead
from gradwatch.rules.dead import NEVER
from tests.histories import NAN, each, history_of, layers, slow, stats, told_by

RULE = Dead()
CUT_OFF = RULE.patience + RULE.warmup
"""Steps until layers that are cut off from the output are told of."""
ISOLATED = RULE.isolated_patience + RULE.warmup


def test_what_is_cut_off_from_the_output_is_told_within_a_few_steps() -> None:
    found = each(Dead().check(history_of([layers([0.0, 0.0, 1.0])] * 20)))
    assert [(a.step, a.layer, a.severity) for a in found] == [
        (CUT_OFF - 1, "fc0", Severity.ERROR),
        (CUT_OFF - 1, "fc1", Severity.ERROR),
    ]
    assert found[0].message == (
        f"fc1, fc0: gradient was exactly zero for {RULE.patience} steps, and so was that of every layer before it"
    )
    assert (found[0].value, found[0].threshold) == (0.0, 0.0)


def test_a_dead_layer_among_living_ones_is_a_warning_after_more_patience() -> None:
    rule = Dead()
    (alert,) = each(rule.check(history_of([layers([1.0, 0.0, 1.0])] * (ISOLATED + 20))))
    assert (alert.step, alert.layer, alert.severity) == (ISOLATED - 1, "fc1", Severity.WARNING)
    assert alert.message == f"fc1: gradient was exactly zero for {RULE.isolated_patience} steps"
    assert rule.open_layers == ("fc1",)


def test_where_all_are_zero_nothing_is_cut_off() -> None:
    found = each(Dead().check(history_of([layers([1.0, 1.0])] + [layers([0.0, 0.0])] * (2 * ISOLATED + 20))))
    later = ISOLATED + RULE.isolated_patience
    assert [(a.step, a.severity) for a in found] == [(later - 1, Severity.WARNING)] * 2


@pytest.mark.parametrize(("asked", "told"), [(0.0, False), (0.1, True), (NAN, True)])
def test_a_loss_that_asks_for_nothing_has_been_solved(asked: float, told: bool) -> None:
    run = [stats(0, layers([1.0, 1.0]))]
    run += [stats(i, layers([0.0, 0.0]), loss_gradient=asked if i == 60 else None) for i in range(1, 200)]
    assert bool(told_by(Dead(), run)) is told


@pytest.mark.parametrize(("numel", "severity"), [(1.0, Severity.WARNING), (8.0, Severity.ERROR)])
def test_a_number_of_the_models_own_comes_before_nothing(numel: float, severity: Severity) -> None:
    run = [stats(i, layers([0.0, 1.0]), numel=np.array([numel, 64.0])) for i in range(ISOLATED + 20)]
    assert [(a.layer, a.severity) for a in told_by(Dead(), run)] == [("fc0", severity)]


def test_where_no_layer_ever_had_a_gradient_nothing_will_train() -> None:
    """But for a loss that is off for a while, of which a WARNING is enough."""
    found = each(Dead().check(history_of([layers([0.0, None, 0.0])] * (4 * ISOLATED))))
    first = NEVER + RULE.warmup - 1
    assert [(a.step, a.layer, a.severity) for a in found] == [
        (first, "fc0", Severity.WARNING),
        (first, "fc2", Severity.WARNING),
        (ISOLATED, "fc0", Severity.ERROR),
        (ISOLATED, "fc2", Severity.ERROR),
    ]
    assert found[0].message.endswith("was exactly zero for 20 steps, and no layer ever had one")
    assert found[2].message.endswith("was exactly zero for 51 steps, and no layer ever had one")


def test_a_layer_that_is_cut_off_makes_no_error_of_one_that_is_not() -> None:
    run = [layers([1.0, 1.0, 0.0, 1.0])] * (ISOLATED + 5) + [layers([0.0, 1.0, 0.0, 1.0])] * 10
    found = [(a.layer, a.severity) for a in each(Dead().check(history_of(run)))]
    assert found == [("fc2", Severity.WARNING), ("fc0", Severity.ERROR)]


@pytest.mark.parametrize(("left", "becomes"), [(1.0, [Severity.WARNING, Severity.ERROR]), (0.5, [Severity.WARNING])])
def test_all_are_zero_and_nothing_has_been_learned(left: float, becomes: list[Severity]) -> None:
    found = told_by(Dead(), slow(layers([0.0, 0.0]), left, first=layers([1.0, 1.0])))
    assert [a.severity for a in found if a.layer == "fc1"] == becomes
    for other in (1.0, float("nan")):
        isolated = told_by(Dead(), slow(layers([1.0, 0.0, other]), left))
        assert [a.severity for a in isolated] == [Severity.WARNING]


@pytest.mark.parametrize("examples", [1, 2])
def test_one_example_at_a_time_may_pass_nothing(examples: int) -> None:
    alike = np.full(2, np.nan if examples == 1 else 0.5)
    first = stats(0, layers([1.0, 1.0]), variation=alike, output_variation=float(alike[0]))
    found = told_by(Dead(), [first, *(stats(i, layers([0.0, 1.0])) for i in range(1, 80))])
    waits = RULE.isolated_patience if examples == 1 else RULE.patience
    assert [(a.step, a.severity) for a in found] == [(waits + RULE.warmup - 1, Severity.ERROR)]


def test_layers_without_a_gradient_cut_nothing_off() -> None:
    assert each(Dead().check(history_of([layers([None, 1.0, None, 1.0])] * 2 * ISOLATED))) == []
    found = each(Dead().check(history_of([layers([None, 0.0, 1.0])] * 20)))
    assert [(a.step, a.layer) for a in found] == [(CUT_OFF - 1, "fc1")]


def test_the_smallest_number_is_not_zero() -> None:
    assert each(Dead().check(history_of([layers([5e-324, 1.0])] * 2 * ISOLATED))) == []


def test_one_live_step_starts_the_count_anew() -> None:
    dead, alive = layers([0.0, 1.0]), layers([1.0, 1.0])
    assert each(Dead().check(history_of([*[dead] * (CUT_OFF - 1), alive, *[dead] * (RULE.patience - 1)]))) == []
    isolated = [1.0, *[0.0] * (RULE.isolated_patience - 1)]
    found = each(Dead().check(History.from_grad_norms(fc=5 * isolated, out=[0.0] * len(5 * isolated))))
    assert {a.layer for a in found} == {"out"}


def test_branches_that_come_alive_are_not_dead() -> None:
    run = [layers([0.0, 1.0])] * RULE.warmup + [layers([1e-12, 1.0])] * 100
    assert each(Dead().check(history_of(run))) == []


def test_networks_that_are_trained_in_turns() -> None:
    """The gradients of one are left at zero while the other is trained, five steps in six."""
    run = [*[layers([0.0, 1.0])] * 5, layers([1.0, 0.0])] * 30
    assert each(Dead().check(history_of(run))) == []


def test_a_layer_that_comes_alive_recovers() -> None:
    rule = Dead(patience=3, warmup=0)
    found = each(rule.check(history_of([*[layers([0.0, 1.0])] * 5, *[layers([1.0, 1.0])] * rule.recovery])))
    assert [(a.step, a.severity) for a in found] == [(2, Severity.ERROR), (4 + rule.recovery, Severity.INFO)]


def test_a_sign_of_life_now_and_then_is_no_recovery() -> None:
    mostly = [*[layers([0.0, 1.0])] * 7, layers([1.0, 1.0])]
    assert [a.severity for a in each(Dead().check(history_of(mostly * 20)))] == [Severity.ERROR]


def test_steps_without_any_gradient_are_no_life() -> None:
    steps = [None] * 2 + [0.0] * 200
    alert = each(Dead().check(History.from_grad_norms(a=steps, b=steps)))[-1]
    assert alert.severity is Severity.ERROR
    assert alert.message.endswith("and no layer ever had one")
