from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch import History, Severity
from gradwatch.rules import Vanishing
from tests.histories import INF, LOOK, NAN, each, history_of, layers, slow, stats, told_by

RULE = Vanishing()
LONG = RULE.patience + RULE.warmup
RATIO, THRESHOLD = float(RULE.ratio), float(RULE.threshold)  # type: ignore[arg-type]


def reference(rows: list[list[float | None]], ratio: float, threshold: float) -> list[tuple[float, bool]]:
    """The limit and the verdict of each layer in the last of ``rows``, a layer at a time."""
    usable = [norm is not None and math.isfinite(norm) for norm in rows[-1]]
    now = [norm if norm is not None and u else 0.0 for norm, u in zip(rows[-1], usable)]
    window = [[norm or 0.0 for norm in row] for row in rows[-RULE.window :]]
    finite = [row for row in window if all(map(math.isfinite, row))]
    usual = [float(np.median(column)) for column in zip(*finite)] if finite else [0.0] * len(now)
    peak = [max([x for x in column if x is not None and math.isfinite(x)], default=0.0) for column in zip(*rows)]
    limits, small = [], []
    for k, norm in enumerate(now):
        lost = all(max(values[: k + 1]) < ratio * max(values[k:]) for values in (now, usual))
        tiny = peak[k] < 10 * threshold and norm < threshold
        limit = ratio * max(now[k:])
        limits.append(max(limit, threshold) if tiny else limit)
        small.append(usable[k] and (lost or tiny))
    bad = [
        small[k] and (now[k] > 0 or any(small[m] and now[m] > 0 for m in range(k + 1, len(now))))
        for k in range(len(now))
    ]
    return list(zip(limits, bad))


norms = st.one_of(st.none(), st.floats(0.0, 1e6), st.sampled_from([0.0, 1e-12, 1e-8, 1e-3, 1.0, NAN, INF]))


@given(
    rows=st.lists(st.lists(norms, min_size=4, max_size=4), min_size=1, max_size=5),
    ratio=st.floats(1e-6, 1.0),
    threshold=st.floats(0.0, 1e-3),
)
def test_the_judgement_of_a_step(rows: list[list[float | None]], ratio: float, threshold: float) -> None:
    rule = Vanishing(ratio=ratio, norm_ratio=ratio, threshold=threshold, warmup=0)
    history = history_of(map(layers, rows))
    rule.align(history.layers)
    found = [rule.judge(history.up_to(i + 1)) for i in range(len(rows))][-1]
    expected = reference(rows, ratio, threshold)
    np.testing.assert_allclose(found.threshold, [limit for limit, _ in expected], rtol=1e-12)
    assert found.bad.tolist() == [bad for _, bad in expected]
    assert not (found.bad & found.good).any()


def test_far_below_the_layers_after_it() -> None:
    rule = Vanishing()
    (alert,) = each(rule.check(History.from_grad_norms(fc0=[0.9 * RATIO * 3.0] * 2 * LONG, fc1=[3.0] * 2 * LONG)))
    assert (alert.step, alert.layer, alert.severity) == (LONG - 1, "fc0", Severity.ERROR)
    assert alert.value == 0.9 * RATIO * 3.0
    assert alert.threshold == pytest.approx(RATIO * 3.0)
    assert alert.message.startswith("fc0: gradient norm ")
    assert f"stayed below {RATIO * 3.0:.3g} for {rule.patience} steps" in alert.message


def test_a_little_above_the_limit_is_no_alert() -> None:
    assert each(Vanishing().check(History.from_grad_norms(fc0=[1.1 * RATIO] * 2 * LONG, fc1=[1.0] * 2 * LONG))) == []


def test_a_large_layer_before_it_does_not_count() -> None:
    assert each(Vanishing().check(History.from_grad_norms(fc0=[1.0] * 2 * LONG, fc1=[1e-3 * RATIO] * 2 * LONG))) == []


def test_the_relative_limit_has_no_scale() -> None:
    for scale in (1e-20, 1.0, 1e20):
        rule = Vanishing(threshold=0.0)
        found = each(rule.check(History.from_grad_norms(a=[0.1 * RATIO * scale] * LONG, b=[scale] * LONG)))
        assert [a.layer for a in found] == ["a"]


def test_near_zero_from_the_start() -> None:
    found = each(Vanishing().check(History.from_grad_norms(fc=[THRESHOLD / 2] * 2 * LONG)))
    assert [(a.step, a.threshold) for a in found] == [(LONG - 1, THRESHOLD)]


def test_a_layer_that_once_was_large_has_converged() -> None:
    assert each(Vanishing().check(History.from_grad_norms(fc=[1.0] + [THRESHOLD / 2] * 2 * LONG))) == []


def test_it_recovers_above_twice_the_limit() -> None:
    low, between, high = 0.5 * RATIO, 1.5 * RATIO, 2.5 * RATIO
    column = [low] * LONG + [between] * 50 + [high] * 50
    rule = Vanishing(norm_ratio=RATIO)
    found = each(rule.check(History.from_grad_norms(fc0=column, fc1=[1.0] * len(column))))
    assert [(a.step, a.severity) for a in found] == [
        (LONG - 1, Severity.ERROR),
        (LONG + 50 + RULE.recovery - 1, Severity.INFO),
    ]
    assert f"recovered from vanishing after {50 + RULE.recovery} steps" in found[1].message


def test_zero_before_a_vanishing_layer_underflowed() -> None:
    row = layers([0.0, 0.01 * RATIO, 1.0, 0.0])
    found = each(Vanishing().check(history_of([row] * LONG)))
    assert [a.layer for a in found] == ["fc0", "fc1"]


def test_zero_alone_is_left_to_dead() -> None:
    assert each(Vanishing().check(history_of([layers([0.0, 1.0])] * 2 * LONG))) == []


def test_the_warmup_is_not_judged() -> None:
    column = [0.01 * RATIO] * 30 + [1.0] * 30
    rule = Vanishing(patience=1, warmup=30)
    assert each(rule.check(History.from_grad_norms(fc0=column, fc1=[1.0] * 60))) == []


def test_a_limit_for_each_pattern() -> None:
    rule = Vanishing(ratio={"encoder.*": 1e-9}, patience=1, warmup=0)
    norms = {"encoder.0": [1e-6] * 3, "other": [0.01 * RATIO] * 3, "head": [1.0] * 3}
    assert [a.layer for a in each(rule.check(History.from_grad_norms(norms)))] == ["other"]


def test_a_small_layer_behind_one_that_is_not_is_no_sign() -> None:
    """As the queries and keys of attention, or a branch that begins near zero."""
    run = [layers([1.0, 1e-5, 0.5, 1e-5, 1.0])] * 200
    assert each(Vanishing().check(history_of(run))) == []


@pytest.mark.parametrize(
    ("norms", "numel", "found"),
    [
        ([1e-3, 1e-2, 1.0], [1.0, 1.0, 1.0], ["fc0", "fc1"]),
        ([1e-3, 1e-2, 1.0], [1.0, 1.0, 1e4], []),  # small by norm, for they are small
        ([2e-2, 2e-2, 1.0], [1e6, 1e6, 1.0], []),  # small by root mean square, for they are large
    ],
)
def test_a_layer_must_be_small_by_norm_and_by_root_mean_square(
    norms: list[float], numel: list[float], found: list[str]
) -> None:
    history, rule, alerts = History(), Vanishing(ratio=1.1e-2), []
    for step in range(LONG):
        history.append(stats(step, layers(norms), numel=np.array(numel)))
        alerts += each(rule.check(history))
    assert [a.layer for a in alerts] == found


@pytest.mark.parametrize(
    ("norms", "severity"),
    [
        ([1e-6, 1e-4, 1e-2, 1.0], Severity.ERROR),  # step by step
        ([1e-6, 1e-6, 1e-6, 1.0], Severity.WARNING),  # in one place
        ([1e-5, 1e-3, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], Severity.WARNING),  # one of nine, in two places
    ],
)
def test_what_falls_in_one_place_is_a_warning(norms: list[float], severity: Severity) -> None:
    found = each(Vanishing().check(history_of([layers(norms)] * LONG)))
    assert {a.severity for a in found} == {severity}


@pytest.mark.parametrize("left", [0.99, 0.9])
def test_a_warning_is_told_again_where_nothing_was_learned(left: float) -> None:
    """Once, as an ERROR."""
    steps = slow(layers([1e-6, 1e-6, 1e-6, 1.0]), left)
    steps += [replace(steps[-1], step=LOOK + 1 + i) for i in range(20)]
    found = [a for a in told_by(Vanishing(), steps) if a.layer == "fc0"]
    expected = [(LONG - 1, Severity.WARNING), (LOOK, Severity.ERROR)]
    assert [(a.step, a.severity) for a in found] == expected[: 1 + (left > 0.95)]
    assert found[0].message + "; 99% of the outputs' error is left" * (len(found) > 1) == found[-1].message


def test_other_layers_make_no_error_of_a_warning() -> None:
    """The share of one fall strays round its limit, as norms do."""
    noise = np.exp(np.random.default_rng(0).normal(0, 0.3, (400, 4)))
    found = each(Vanishing().check(history_of([layers(n) for n in np.array([1e-6, 2e-6, 1e-5, 1.0]) * noise])))
    assert {a.severity for a in found} == {Severity.WARNING}


def test_what_was_fine_before_is_a_warning() -> None:
    fine, lost = layers([1.0, 1.0, 1.0, 1.0]), layers([1e-6, 1e-4, 1e-2, 1.0])
    for steps, severity in ((10, Severity.ERROR), (30, Severity.WARNING)):
        found = each(Vanishing().check(history_of([*[fine] * steps, *[lost] * 30])))
        assert {a.severity for a in found} == {severity}


@pytest.mark.parametrize(("moves", "layers_found"), [(1e-4, ["fc0", "fc1"]), (1e-2, [])])
def test_layers_that_move_must_be_smaller_still(moves: float, layers_found: list[str]) -> None:
    history, rule, found = History(), Vanishing(), []
    for step in range(200):
        seen = {"update_ratio": np.full(3, moves)} if step == 1 else {}
        history.append(stats(step, layers([0.5 * RATIO, 0.6 * RATIO, 1.0]), **seen))
        found += each(rule.check(history))
    assert [a.layer for a in found] == layers_found


@pytest.mark.parametrize(("ratio", "told_at"), [(0.1 * RATIO, 103), (1e-5 * RATIO, LONG - 1)])
def test_layers_that_move_have_a_hundred_steps_to_find_out(ratio: float, told_at: int) -> None:
    run = [layers([ratio, ratio**0.75, ratio**0.5, ratio**0.25, 1.0])] * 200
    moves = [stats(i, step, **({"update_ratio": np.full(5, 1e-3)} if i == 1 else {})) for i, step in enumerate(run)]
    history, rule, found = History(), Vanishing(), []
    for step in moves:
        history.append(step)
        found += each(rule.check(history))
    assert [(a.step, a.severity) for a in found if a.layer == "fc0"] == [(told_at, Severity.ERROR)]


@pytest.mark.parametrize(("size", "moves", "told"), [(0.1, 1e-4, True), (1.0, 1e-4, False), (0.1, 1e-2, False)])
def test_a_signal_that_fades_forward_and_backward(size: float, moves: float, told: bool) -> None:
    history, rule, found = History(), Vanishing(), []
    for step in range(2 * LONG):
        seen = {"update_ratio": np.full(3, moves), "input_size": np.array([8.0, 1.0, size])}
        history.append(stats(step, layers([0.03, 0.1, 1.0]), **seen))
        found += each(rule.check(history))
    assert {a.severity for a in found} == ({Severity.ERROR} if told else set())


@pytest.mark.parametrize(
    ("zeros", "found"),
    [
        ([0.9, 0.0, 0.0], {"fc0", "fc1"}),
        ([0.9, 0.9, 0.0], set()),  # two embeddings
        ([0.0, 0.9, 0.0], {"fc0"}),
        ([0.4, 0.4, 0.0], {"fc0", "fc1"}),
    ],
)
def test_tables_are_lost_only_with_a_layer_after_them(zeros: list[float], found: set[str]) -> None:
    run = [
        stats(i, layers([1e-5, 1e-3, 1.0]), **({"zero_fraction": np.array(zeros)} if i % 5 == 1 else {}))
        for i in range(20)
    ]
    assert {a.layer for a in told_by(Vanishing(), run)} == found


@pytest.mark.parametrize(("left", "told"), [(0.1, False), (0.8, True), (NAN, True)])
def test_what_was_fine_may_vanish_once_much_is_learned(left: float, told: bool) -> None:
    run = [
        stats(i, layers([1.0 if i < 150 else 1e-5, 1.0, 1.0]), **({"output_error": left} if i % 100 == 1 else {}))
        for i in range(200)
    ]
    assert [(a.layer, a.severity) for a in told_by(Vanishing(), run)] == [("fc0", Severity.WARNING)] * told


def test_a_squared_error_may_have_lost_the_targets_mean_alone() -> None:
    look = {"output_error": NAN}
    run = [
        stats(
            i,
            layers([1.0 if i < 150 else 1e-5, 1.0, 1.0]),
            **(look | {"output_gradient": 1.0 + i % 2} if i < 16 else {}),
        )
        for i in range(200)
    ]
    run[101] = stats(101, layers([1.0, 1.0, 1.0]), output_gradient=0.3, **look)
    assert [(a.layer, a.severity) for a in told_by(Vanishing(), run)] == [("fc0", Severity.WARNING)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ratio": 0.0}, ValueError, "Vanishing: ratio must be above 0 and at most 1, got 0.0"),
        ({"ratio": 2.0}, ValueError, "Vanishing: ratio must be above 0 and at most 1, got 2.0"),
        ({"ratio": {"a": 2.0}}, ValueError, r"Vanishing: ratio\['a'\] must be above 0 and at most 1, got 2.0"),
        ({"threshold": -1.0}, ValueError, "Vanishing: threshold must be at least 0, got -1.0"),
        ({"threshold": "1"}, TypeError, "Vanishing: threshold must be a number, got '1'"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        Vanishing(**arguments)


@pytest.mark.parametrize(
    ("norms", "towers", "told"),
    [
        ([1e-5, 1e-5, 1.0, 1.0], None, {"fc0", "fc1"}),
        ([1e-5, 1e-5, 1.0, 1.0], [0, 0, 1, 1], set()),
        ([1e-5, 1.0, 1e-5, 1.0], [0, 1, 0, 1], set()),
        ([1e-9, 1.0, 1e-5, 1.0], [0, 1, 0, 1], {"fc0"}),
        ([1e-9, 1e-5, 1e-5, 1.0], [0, 0, 1, 1], {"fc0", "fc2"}),
    ],
)
def test_networks_beside_each_other_are_compared_each_with_itself(
    norms: list[float], towers: list[int] | None, told: set[str]
) -> None:
    run = [stats(i, layers(norms), towers=np.array(towers) if towers and i == 1 else None) for i in range(20)]
    assert {a.layer for a in told_by(Vanishing(), run)} == told
