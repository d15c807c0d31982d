from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, History, Severity
from gradwatch.rules import Exploding
from gradwatch.rules.baseline import NOISE
from tests.histories import INF, NAN, history_of, stats

RULE = Exploding()
THRESHOLD, GROWTH = float(RULE.threshold), float(RULE.growth)  # type: ignore[arg-type]
READY = RULE.warmup + 10
"""Steps after which there is a baseline."""


def check(column: list[float | None], rule: Exploding | None = None) -> list[Alert]:
    return (rule or Exploding()).check(History.from_grad_norms(fc=column))


def test_above_the_absolute_limit_for_patience_steps() -> None:
    (alert,) = check([1.0] * 3 + [2 * THRESHOLD] * 20)
    assert (alert.step, alert.layer, alert.severity) == (3 + RULE.patience - 1, "fc", Severity.ERROR)
    assert (alert.value, alert.threshold) == (2 * THRESHOLD, THRESHOLD)
    assert alert.message == (
        f"fc: gradient norm {2 * THRESHOLD:.3g} stayed above {THRESHOLD:.3g} for {RULE.patience} steps"
    )


def test_one_high_step_is_not_an_explosion() -> None:
    for height in (2 * THRESHOLD, 1e30, NAN, INF):
        assert check([1.0] * READY + [height] + [1.0] * 30) == []


def test_far_above_the_own_baseline() -> None:
    level = THRESHOLD / GROWTH / 100
    (alert,) = check([level] * READY + [2 * GROWTH * level] * 20)
    assert alert.step == READY + RULE.patience - 1
    assert alert.threshold == pytest.approx(GROWTH * level)


def test_a_little_below_the_growth_limit_is_no_alert() -> None:
    level = THRESHOLD / GROWTH / 100
    assert check([level] * READY + [0.9 * GROWTH * level] * 100) == []


def test_an_explosion_does_not_become_the_baseline() -> None:
    level, high = 1e-3, 2e-3 * GROWTH
    found = check([level] * READY + [high] * 500 + [level] * 20)
    assert [(a.step, a.severity) for a in found] == [
        (READY + RULE.patience - 1, Severity.ERROR),
        (READY + 500 + RULE.recovery - 1, Severity.INFO),
    ]


def test_a_return_to_where_training_came_from_is_no_explosion() -> None:
    rng = np.random.default_rng(0)
    start, low = rng.lognormal(0.0, 0.3, 60), 1e-6 * rng.lognormal(0.0, 0.3, 200)
    assert start.max() < NOISE
    assert check([*start, *low, *start]) == []


def test_a_rise_beyond_where_training_came_from_is_one() -> None:
    found = check([1.0] * 60 + [1e-6] * 200 + [2 * NOISE] * 20)
    assert [a.step for a in found] == [260 + RULE.patience - 1]
    assert found[0].threshold == pytest.approx(NOISE)


@pytest.mark.parametrize(("ratio", "alerts"), [(0.5, 0), (2.0, 1), (NAN, 1)])
def test_the_absolute_limit_is_not_for_weights_that_move_calmly(ratio: float, alerts: int) -> None:
    history = History()
    for i in range(60):
        update = np.array([ratio * RULE.calm_update]) if i == 1 else None
        history.append(stats(i, {"fc": 0.1 if i < 2 else 5 * THRESHOLD}, **{"update_ratio": update} if i == 1 else {}))
    assert len(Exploding(growth=1e9).check(history)) == alerts


def test_it_recovers_below_half_the_limit() -> None:
    column = [1.0] * 3 + [2 * THRESHOLD] * 5 + [0.7 * THRESHOLD] * 50 + [0.4 * THRESHOLD] * 50
    found = check(column, rule := Exploding(growth=1e9))
    assert [(a.step, a.severity) for a in found] == [
        (3 + RULE.patience - 1, Severity.ERROR),
        (58 + RULE.recovery - 1, Severity.INFO),
    ]
    assert rule.open_layers == ()


def test_a_limit_for_each_pattern() -> None:
    rule = Exploding(threshold={"head": 10.0})
    found = rule.check(History.from_grad_norms(body=[20.0] * 5, head=[20.0] * 5))
    assert [(a.layer, a.threshold) for a in found] == [("head", 10.0)]


def test_each_layer_by_itself() -> None:
    run = [{"a": 1.0, "b": 1.0}] * 5 + [{"a": 1.0, "b": 2 * THRESHOLD}] * 5 + [{"a": 2 * THRESHOLD, "b": 1.0}] * 5
    found = [(a.step, a.layer) for a in Exploding().check(history_of(run)) if a.severity is Severity.ERROR]
    assert found == [(5 + RULE.patience - 1, "b"), (10 + RULE.patience - 1, "a")]


@pytest.mark.parametrize(("grown", "explodes"), [(1e-6, False), (1e-1, True)])
def test_a_layer_that_grows_and_has_no_part_in_the_step_is_not_exploding(grown: float, explodes: bool) -> None:
    run = [{"a": 1e-9, "b": 1.0}] * 40 + [{"a": grown, "b": 1.0}] * 5
    assert [a.layer for a in Exploding().check(history_of(run))] == (["a"] if explodes else [])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threshold": 0}, ValueError, "Exploding: threshold must be above 0, got 0"),
        ({"growth": 1.0}, ValueError, "Exploding: growth must be above 1, got 1.0"),
        ({"growth": {"a": 0.5}}, ValueError, r"Exploding: growth\['a'\] must be above 1, got 0.5"),
        ({"calm_update": -0.1}, ValueError, "Exploding: calm_update must be at least 0, got -0.1"),
        ({"threshold": None}, TypeError, "Exploding: threshold must be a number, got None"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        Exploding(**arguments)
