from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch import History, Severity
from gradwatch.rules import Vanishing
from tests.histories import INF, NAN, history_of, layers

RULE = Vanishing()
LONG = RULE.patience + RULE.warmup
RATIO, THRESHOLD = float(RULE.ratio), float(RULE.threshold)  # type: ignore[arg-type]


def reference(row: list[float | None], peak: list[float], ratio: float, threshold: float) -> list[tuple[float, bool]]:
    """The limit and the verdict of each layer, a layer at a time."""
    usable = [norm is not None and math.isfinite(norm) for norm in row]
    limits = []
    for i in range(len(row)):
        later = max([row[j] for j in range(i, len(row)) if usable[j]], default=0.0)
        relative = ratio * later
        limits.append(max(relative, threshold) if peak[i] < 10 * threshold else relative)
    small = [u and norm < limit for u, norm, limit in zip(usable, row, limits)]
    bad = []
    for i, norm in enumerate(row):
        underflowed = any(small[j] and row[j] > 0 for j in range(i + 1, len(row)))
        bad.append(small[i] and (norm > 0 or underflowed))
    return list(zip(limits, bad))


norms = st.one_of(st.none(), st.floats(0.0, 1e6), st.sampled_from([0.0, 1e-12, 1e-8, 1e-3, 1.0, NAN, INF]))


@given(
    rows=st.lists(st.lists(norms, min_size=4, max_size=4), min_size=1, max_size=5),
    ratio=st.floats(1e-6, 1.0),
    threshold=st.floats(0.0, 1e-3),
)
def test_the_judgement_of_a_step(rows: list[list[float | None]], ratio: float, threshold: float) -> None:
    rule = Vanishing(ratio=ratio, threshold=threshold, warmup=0)
    history = history_of(map(layers, rows))
    found = [rule.judge(history.up_to(i + 1)) for i in range(len(rows))][-1]
    finite = [[x for x in column if x is not None and math.isfinite(x)] for column in zip(*rows)]
    expected = reference(rows[-1], [max(column, default=0.0) for column in finite], ratio, threshold)
    np.testing.assert_allclose(found.threshold, [limit for limit, _ in expected], rtol=1e-12)
    assert found.bad.tolist() == [bad for _, bad in expected]
    assert not (found.bad & found.good).any()


def test_far_below_the_layers_after_it() -> None:
    rule = Vanishing()
    (alert,) = rule.check(History.from_grad_norms(fc0=[0.9 * RATIO * 3.0] * 2 * LONG, fc1=[3.0] * 2 * LONG))
    assert (alert.step, alert.layer, alert.severity) == (LONG - 1, "fc0", Severity.ERROR)
    assert alert.value == 0.9 * RATIO * 3.0
    assert alert.threshold == pytest.approx(RATIO * 3.0)
    assert alert.message.startswith("fc0: gradient norm ")
    assert alert.message.endswith(f"stayed below {RATIO * 3.0:.3g} for {rule.patience} steps")


def test_a_little_above_the_limit_is_no_alert() -> None:
    assert Vanishing().check(History.from_grad_norms(fc0=[1.1 * RATIO] * 2 * LONG, fc1=[1.0] * 2 * LONG)) == []


def test_a_large_layer_before_it_does_not_count() -> None:
    assert Vanishing().check(History.from_grad_norms(fc0=[1.0] * 2 * LONG, fc1=[1e-3 * RATIO] * 2 * LONG)) == []


def test_the_relative_limit_has_no_scale() -> None:
    for scale in (1e-20, 1.0, 1e20):
        rule = Vanishing(threshold=0.0)
        found = rule.check(History.from_grad_norms(a=[0.1 * RATIO * scale] * LONG, b=[scale] * LONG))
        assert [a.layer for a in found] == ["a"]


def test_near_zero_from_the_start() -> None:
    found = Vanishing().check(History.from_grad_norms(fc=[THRESHOLD / 2] * 2 * LONG))
    assert [(a.step, a.threshold) for a in found] == [(LONG - 1, THRESHOLD)]


def test_a_layer_that_once_was_large_has_converged() -> None:
    assert Vanishing().check(History.from_grad_norms(fc=[1.0] + [THRESHOLD / 2] * 2 * LONG)) == []


def test_it_recovers_above_twice_the_limit() -> None:
    low, between, high = 0.5 * RATIO, 1.5 * RATIO, 2.5 * RATIO
    column = [low] * LONG + [between] * 50 + [high] * 50
    found = RULE.check(History.from_grad_norms(fc0=column, fc1=[1.0] * len(column)))
    assert [(a.step, a.severity) for a in found] == [
        (LONG - 1, Severity.ERROR),
        (LONG + 50 + RULE.recovery - 1, Severity.INFO),
    ]
    assert f"recovered from vanishing after {50 + RULE.recovery} steps" in found[1].message


def test_zero_before_a_vanishing_layer_underflowed() -> None:
    row = layers([0.0, 0.01 * RATIO, 1.0, 0.0])
    found = Vanishing().check(history_of([row] * LONG))
    assert [a.layer for a in found] == ["fc0", "fc1"]


def test_zero_alone_is_left_to_dead() -> None:
    assert Vanishing().check(history_of([layers([0.0, 1.0])] * 2 * LONG)) == []


def test_the_warmup_is_not_judged() -> None:
    column = [0.01 * RATIO] * 30 + [1.0] * 30
    rule = Vanishing(patience=1, warmup=30)
    assert rule.check(History.from_grad_norms(fc0=column, fc1=[1.0] * 60)) == []


def test_a_limit_for_each_pattern() -> None:
    rule = Vanishing(ratio={"encoder.*": 1e-9}, patience=1, warmup=0)
    norms = {"encoder.0": [1e-6] * 3, "other": [0.01 * RATIO] * 3, "head": [1.0] * 3}
    assert [a.layer for a in rule.check(History.from_grad_norms(norms))] == ["other"]


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
