from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, History, Severity
from gradwatch.rules import Exploding
from gradwatch.rules.baseline import NOISE
from tests.histories import INF, LOOK, NAN, each, history_of, slow, stats, told_by

RULE = Exploding()
THRESHOLD, GROWTH = float(RULE.threshold), float(RULE.growth)  # type: ignore[arg-type]
READY = RULE.warmup + 10
"""Steps after which there is a baseline."""


def check(column: list[float | None], rule: Exploding | None = None) -> list[Alert]:
    """The alerts of ``fc``, beside a layer without any."""
    quiet = [None if norm is None else 1e-6 for norm in column]
    return (rule or Exploding()).check(History.from_grad_norms(fc=column, out=quiet))


def test_above_the_absolute_limit_for_patience_steps() -> None:
    (alert,) = check([1.0] * 3 + [2 * THRESHOLD] * 20)
    assert (alert.step, alert.layer, alert.severity) == (3 + RULE.patience - 1, "fc", Severity.ERROR)
    assert (alert.value, alert.threshold) == (2 * THRESHOLD, THRESHOLD)
    assert alert.message == (
        f"fc: gradient norm {2 * THRESHOLD:.3g} stayed above {THRESHOLD:.3g} for {RULE.patience} steps"
    )


@pytest.mark.parametrize("units", [0.1, 50.0])
def test_gradients_in_units_of_the_loss_are_a_warning(units: float) -> None:
    """Until they are as many times as large as the outputs', or nothing has been learned."""
    large, larger = {"fc": 5e3, "out": 1.0}, {"fc": 1e3 * 60.0, "out": 1.0}
    early = [stats(i, large, output_gradient=units * (1 + 0.1 * i)) for i in range(10)]
    later = [stats(i, step) for i, step in enumerate([larger, large, larger, larger, larger], 10)]
    found = told_by(Exploding(), [*early, *later])
    expected = [(1, Severity.ERROR)] if units < 1 else [(1, Severity.WARNING), (13, Severity.ERROR)]
    assert [(a.step, a.severity) for a in found] == expected


def test_they_are_an_error_where_nothing_was_learned() -> None:
    steps = slow({"fc": 5e3, "out": 1.0}, 0.99, start={"output_gradient": 50.0})
    found = told_by(Exploding(), steps)
    assert [(a.step, a.severity) for a in found] == [(1, Severity.WARNING), (LOOK, Severity.ERROR)]
    assert found[1].message.endswith("stayed above 1e+03 for 2 steps; 99% of the outputs' error is left")


def test_one_high_step_is_not_an_explosion() -> None:
    for height in (2 * THRESHOLD, 1e30, NAN, INF):
        assert check([1.0] * READY + [height] + [1.0] * 30) == []


def test_far_above_the_own_baseline() -> None:
    level = THRESHOLD / GROWTH / 100
    (alert,) = check([level] * READY + [2 * GROWTH * level] * 20)
    assert (alert.step, alert.severity) == (READY + RULE.patience - 1, Severity.WARNING)
    assert alert.threshold == pytest.approx(GROWTH * level)


def test_a_little_below_the_growth_limit_is_no_alert() -> None:
    level = THRESHOLD / GROWTH / 100
    assert check([level] * READY + [0.9 * GROWTH * level] * 100) == []


def test_an_explosion_does_not_become_the_baseline() -> None:
    level, high = 1e-3, 2e-3 * GROWTH
    found = check([level] * READY + [high] * 500 + [level] * 20)
    assert [(a.step, a.severity) for a in found] == [
        (READY + RULE.patience - 1, Severity.WARNING),
        (READY + 500 + RULE.recovery - 1, Severity.INFO),
    ]


def test_a_return_to_where_training_came_from_is_no_explosion() -> None:
    rng = np.random.default_rng(0)
    start, low = rng.lognormal(0.0, 0.3, 60), 1e-6 * rng.lognormal(0.0, 0.3, 200)
    assert start.max() < NOISE
    assert check([*start, *low, *start]) == []


def test_a_rise_beyond_where_training_came_from_is_one() -> None:
    found = check([1.0] * 60 + [1e-6] * 200 + [2 * RULE.above_all] * 20)
    assert [a.step for a in found] == [260 + RULE.patience - 1]
    assert found[0].threshold == pytest.approx(RULE.above_all)
    assert check([1.0] * 60 + [1e-6] * 200 + [0.9 * RULE.above_all] * 20) == []


@pytest.mark.parametrize(("norm", "severities"), [(1e17, []), (3e18, [Severity.ERROR])])
def test_what_overflows_when_squared_is_one_in_any_units_and_however_calm(
    norm: float, severities: list[Severity]
) -> None:
    calm = {"update_ratio": np.array([1e-6, 1e-6]), "output_gradient": 1e16}
    history, rule, found = History(), Exploding(), []
    for i in range(60):
        history.append(stats(i, {"fc": norm, "out": norm}, **(calm if i < 16 else {})))
        found += each(rule.check(history))
    assert [a.severity for a in found if a.layer == "fc"] == severities


@pytest.mark.parametrize(("norm", "severity"), [(2 * THRESHOLD, Severity.WARNING), (3e18, Severity.ERROR)])
def test_the_units_of_an_absolute_error_are_not_known(norm: float, severity: Severity) -> None:
    """The gradient at the outputs has one size, however large the targets are."""
    look = {"output_gradient": NAN, "output_row": 1.0}
    run = [stats(i, {"fc": 1.0 if i < 30 else norm, "out": 1.0}, **(look if i < 16 else {})) for i in range(40)]
    assert [(a.layer, a.severity) for a in told_by(Exploding(), run)] == [("fc", severity)]


@pytest.mark.parametrize(("ratio", "alerts"), [(0.5, 0), (2.0, 1), (NAN, 1)])
def test_the_absolute_limit_is_not_for_weights_that_move_calmly(ratio: float, alerts: int) -> None:
    history, rule, found = History(), Exploding(growth=1e9), []
    for i in range(60):
        update = {"update_ratio": np.array([ratio * RULE.calm_update, 1e-3])} if i == 1 else {}
        history.append(stats(i, {"fc": THRESHOLD * (0.9 if i < 2 else 5.0), "out": 1.0}, **update))
        found += each(rule.check(history))
    assert [(a.layer, a.severity) for a in found] == [("fc", Severity.ERROR)] * alerts


def test_calm_weights_are_so_up_to_ten_times_the_norm() -> None:
    history, rule, found = History(), Exploding(growth=1e9), []
    for i in range(60):
        update = {"update_ratio": np.array([1e-3, 1e-3])} if i == 1 else {}
        history.append(stats(i, {"fc": THRESHOLD * (0.9 if i < 40 else 10.0), "out": 1.0}, **update))
        found += each(rule.check(history))
    (alert,) = found
    assert (alert.step, alert.layer) == (40 + RULE.patience - 1, "fc")
    assert alert.threshold == pytest.approx(0.9 * RULE.above_all * THRESHOLD)


def test_a_single_layer_may_need_large_weights() -> None:
    assert each(Exploding().check(History.from_grad_norms(fc=[1e3 * THRESHOLD] * 50))) == []


@pytest.mark.parametrize(("norm", "update", "told"), [(100.0, 0.6, True), (40.0, 0.6, False), (100.0, 0.4, False)])
def test_a_step_that_threw_the_weights_off_is_told_at_once(norm: float, update: float, told: bool) -> None:
    history = history_of([{"fc": norm, "out": 1.0}])
    history.append(stats(1, {"fc": 1.0, "out": 1.0}, update_ratio=np.array([9.0, 0.1]), total_update=update))
    found = each(Exploding().check(history))
    assert [(a.step, a.layer, a.value, a.severity) for a in found] == [(1, "fc", norm, Severity.ERROR)] * told
    assert all(a.message == "fc: gradient norm 100 made a step of 60% of the weights' size" for a in found)


@pytest.mark.parametrize(
    ("sizes", "layers"),
    [
        ([10.0, 100.0, 1e3, 2e4], ["fc2", "fc3"]),
        ([10.0, 10.0, 10.0, 2e4], []),  # one place: a bias before a normalisation
        ([2e3, 4e3, 1e4, 2e4], []),  # large inputs, which do not grow
        ([10.0, 100.0, 1e3, 9e3], []),
        ([10.0, NAN, NAN, 2e4], []),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_a_signal_that_grows_from_layer_to_layer(sizes: list[float], layers: list[str], early: bool) -> None:
    names = [f"fc{i}" for i in range(4)]
    history, rule = history_of([dict.fromkeys(names, 1.0)] * (1 if early else 30)), Exploding()
    found = []
    for _ in range(rule.patience):
        assert found == []
        history.append(stats(history.count, dict.fromkeys(names, 1.0), input_size=np.array(sizes)))
        found += each(rule.check(history))
    assert [a.layer for a in found] == (layers if early else [])
    assert all(
        a.message.endswith("comes from an input of norm 2e+04 of the last layer, 10 of the first") for a in found
    )


def test_one_bias_without_a_gradient_for_once_is_no_growth() -> None:
    names, rule, history = ["fc0", "fc1", "fc2"], Exploding(), History()
    for size in (30.0, 2e4, 30.0, 2e4):
        sizes = np.array([1.0, size**0.5, size])
        history.append(stats(history.count, dict.fromkeys(names, 1.0), input_size=sizes))
        assert each(rule.check(history)) == []


def test_a_gradient_that_steps_have_blown_up_is_theirs() -> None:
    """Where the first gradient was fine it is the learning rate, and for UpdateRatio to tell."""
    for first, told in ((20.0, []), (30.0, ["fc"])):
        history = history_of([{"fc": first, "out": 1.0}, {"fc": 100.0, "out": 1.0}])
        history.append(stats(2, {"fc": 1.0, "out": 1.0}, total_update=0.7))
        assert [a.layer for a in each(Exploding().check(history))] == told


SIZES = np.array([5.0, 15.0, 30.0, 60.0])


@pytest.mark.parametrize(
    ("start", "later", "norm", "left", "told"),
    [
        (SIZES, SIZES, 1.0, 0.8, ["fc1", "fc2", "fc3"]),  # a loss that began too high, and what it left
        (SIZES, SIZES, 1.0, 0.6, []),  # it learns
        (SIZES, SIZES, 1.0, NAN, []),
        (SIZES / 2, 4 * SIZES, 1.0, 1.0, []),  # it grew, as weights do
        (SIZES / 2, 4 * SIZES, 2 * THRESHOLD, 1.0, []),  # also where the loss is in large units
    ],
)
def test_a_start_that_is_too_large_where_little_was_learned_since(
    start: np.ndarray, later: np.ndarray, norm: float, left: float, told: list[str]
) -> None:
    step = dict.fromkeys([f"fc{i}" for i in range(4)], norm)
    calm = {"update_ratio": np.full(4, 1e-4), "total_update": 1e-4}
    run = slow(step, left, start={"input_size": start, **calm}, later={"input_size": later})
    found = [a for a in told_by(Exploding(), run) if a.severity is Severity.ERROR]
    assert [(a.step, a.layer) for a in found] == [(LOOK, name) for name in told]
    end = f"of the last layer, {later[0]:.3g} of the first; {left:.0%} of the outputs' error is left"
    assert all(a.message.endswith(end) for a in found)


@pytest.mark.parametrize(
    ("sizes", "moved", "severity"),
    [
        (np.array([400.0, 300.0, 300.0, 300.0]), 0.02, Severity.WARNING),
        (np.array([400.0, 300.0, 300.0, 300.0]), 0.04, Severity.ERROR),
        (np.array([300.0, 300.0, 300.0, 400.0]), 0.02, Severity.ERROR),
    ],
)
def test_large_data_and_small_steps_may_get_there_yet(sizes: np.ndarray, moved: float, severity: Severity) -> None:
    calm = {"update_ratio": np.full(4, 1e-4), "total_update": moved}
    step = dict.fromkeys([f"fc{i}" for i in range(4)], 1.0)
    run = slow(step, 0.8, start={"input_size": sizes, **calm}, later={"input_size": sizes})
    assert {a.severity for a in told_by(Exploding(), run) if a.step == LOOK} == {severity}


@pytest.mark.parametrize(
    ("first", "update", "recurrent", "left", "told"),
    [
        (50.0, 0.2, False, 0.9, True),  # the first step threw the weights off
        (30.0, 0.2, False, 0.9, False),  # its gradient was like the others
        (50.0, 0.1, False, 0.9, False),  # it was small
        (50.0, 0.2, False, 0.8, False),  # something was learned since
        (50.0, NAN, False, 0.9, False),
        (25.0, 1e-3, True, 0.8, True),  # through time, where Adam's steps are small
        (15.0, 1e-3, True, 0.8, False),
        (25.0, 1e-3, True, 0.6, False),
    ],
)
def test_a_first_gradient_far_above_the_others_where_little_was_learned_since(
    first: float, update: float, recurrent: bool, left: float, told: bool
) -> None:
    through_time = {"time_ratio": np.array([1.0, NAN])} if recurrent else {}
    run = slow(
        {"a": 0.6, "b": 0.8},
        left,
        start={"total_update": update},
        later=through_time,
        first={"a": 0.6 * first, "b": 0.8 * first},
    )
    found = told_by(Exploding(), run)
    assert [(a.step, a.severity) for a in found] == [(LOOK, Severity.ERROR)] * 2 * told


def test_what_it_has_cost_is_told_once_and_of_several_layers() -> None:
    sizes = {"input_size": SIZES}
    for names, told in (["fc0", "fc1", "fc2", "fc3"], 4), (["fc"], 0):
        step = dict.fromkeys(names, 1.0)
        seen = sizes if told else {"input_size": SIZES[-1:]}
        run = slow(
            step, 1.0, start={**seen, "total_update": 0.2}, later=seen, before=1.0, first=dict.fromkeys(names, 90.0)
        )
        again = [stats(LOOK + i, step, output_error=1.0 if i == 100 else None, **seen) for i in range(1, 120)]
        found = [a for a in told_by(Exploding(), [*run, *again]) if a.severity is Severity.ERROR]
        assert len(found) == told


def test_it_recovers_below_half_the_limit() -> None:
    column = [1.0] * 3 + [2 * THRESHOLD] * 5 + [0.7 * THRESHOLD] * 50 + [0.4 * THRESHOLD] * 50
    found = check(column, rule := Exploding(growth=1e9))
    assert [(a.step, a.severity) for a in found] == [
        (3 + RULE.patience - 1, Severity.ERROR),
        (58 + RULE.recovery - 1, Severity.INFO),
    ]
    assert rule.open_layers is None


def test_a_limit_for_each_pattern() -> None:
    rule = Exploding(threshold={"head": 10.0})
    found = each(rule.check(History.from_grad_norms(body=[20.0] * 5, head=[20.0] * 5)))
    assert [(a.layer, a.threshold) for a in found] == [("head", 10.0)]


def test_each_layer_by_itself() -> None:
    run = [{"a": 1.0, "b": 1.0}] * 5 + [{"a": 1.0, "b": 2 * THRESHOLD}] * 5 + [{"a": 2 * THRESHOLD, "b": 1.0}] * 5
    found = [(a.step, a.layer) for a in each(Exploding().check(history_of(run))) if a.severity is Severity.ERROR]
    assert found == [(5 + RULE.patience - 1, "b"), (10 + RULE.patience - 1, "a")]


@pytest.mark.parametrize(("grown", "told"), [(1e-6, False), (1.0, False), (0.9 * 10, False), (1.1 * 10, True)])
def test_a_layer_that_wakes_up_to_what_others_have_is_not_exploding(grown: float, told: bool) -> None:
    run = [{"a": 1e-9, "b": 1.0}] * 40 + [{"a": grown, "b": 1.0}] * 5
    assert [(a.layer, a.severity) for a in each(Exploding().check(history_of(run)))] == [("a", Severity.WARNING)] * told


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


@pytest.mark.parametrize(("error", "norm", "told"), [(1.0, 5.0, False), (1.0, 7.0, True), (NAN, 5.0, True)])
def test_the_gradient_of_a_cross_entropy_that_leaves_a_plateau_is_of_usual_size(
    error: float, norm: float, told: bool
) -> None:
    """A hundredfold growth, from the little that comes through a deep network at first."""
    look = {"output_gradient": 0.12, "output_error": error, "output_row": 1.0}
    run = [
        stats(i, {"fc": 1e-3 if i < 90 else norm, "out": 0.1 if i < 90 else norm}, **(look if i < 16 else {}))
        for i in range(100)
    ]
    assert bool(told_by(Exploding(), run)) == told
