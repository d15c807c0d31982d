"""Whether the examples, and the places of a sequence, still differ where they arrive at the last layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, Severity
from gradwatch.rules import Dead, Vanishing, vanishing
from gradwatch.rules.base import StepRule
from gradwatch.rules.dead import first_starved
from gradwatch.rules.signal import BETWEEN, DIM, LASTING, LOOKS, RISES, STILL_DIM, Signal
from tests.histories import INF, LOOK, NAN, each, history_of, layers, slow, stats, told_by

NORMS = [0.05, 0.1, 0.5, 1.0]


def check(rule: StepRule, looks: list[dict[str, Any] | None], norms: Sequence[float | None] = NORMS) -> list[Alert]:
    """What ``rule`` says of four layers whose norms look normal; None where nobody looked."""
    history, found = history_of([]), []
    for step, look in enumerate(looks):
        history.append(stats(step, layers(norms), **(look or {})))
        found += each(rule.check(history))
    return found


def seen(variation: float, within: float = NAN, nothing: float = 0.0, moved: float = 1e-5) -> dict[str, Any]:
    """A close look: what the last layer is given, and how far the stillest layer moves."""
    return {
        "variation": np.array([1.0, 0.5, NAN, variation]),
        "variation_within": np.array([NAN, 0.5, within, NAN]),
        "given_nothing": np.array([0.0, 0.0, nothing, nothing]),
        "input_size": np.full(4, 5.0),
        "update_ratio": np.array([moved, 1e-2, 1e-2, 1e-2]),
    }


def test_examples_that_arrive_alike() -> None:
    found = check(Vanishing(), [seen(1e-4)] * 16)
    told = max(LOOKS - 1, Vanishing().warmup) + Vanishing().patience - 1
    assert [(a.step, a.layer, a.severity) for a in found] == [
        (told, "fc0", Severity.WARNING),
        (told, "fc1", Severity.WARNING),
    ]
    assert found[0].message.endswith("of what the last layer is given 0.0001 differs from example to example")


def test_it_is_over_when_they_differ_again() -> None:
    found = check(Vanishing(), [seen(1e-4)] * 10 + [None] * 5 + [seen(0.5)] * 10)
    assert [a.severity for a in found] == [Severity.WARNING] * 2 + [Severity.INFO] * 2
    assert [a.step for a in found][2:] == [15 + Vanishing().recovery - 1] * 2


@pytest.mark.parametrize(
    "looks",
    [
        [seen(2 * BETWEEN)] * 16,  # enough
        [seen(1e-5 * RISES**i) for i in range(16)],  # on its way out
        [seen(0.5)] + [seen(1e-4)] * 15,  # what training did itself
        [seen(1e-4, moved=1e-3)] * (LASTING - 1) + [None] * 9,  # by Adam it may find a way out
        [seen(1e-5 * 1.15**i, moved=1e-3) for i in range(16)],  # and is on it
        [{**seen(1e-4), "update_ratio": np.full(4, 1e-5 * i)} for i in range(16)],  # its learning rate warms up
        [seen(NAN)] * 16,
        [None] * 16,
    ],
    ids=["enough", "rises", "falls", "moves", "moves and rises", "warms up", "unknown", "nobody looked"],
)
def test_what_is_no_fault(looks: list[dict[str, Any] | None]) -> None:
    assert check(Vanishing(), looks) == []


def test_what_moves_has_time_but_not_for_ever() -> None:
    found = check(Vanishing(), [seen(1e-4, moved=1e-3)] * 16)
    told = LASTING - 1 + Vanishing().patience - 1
    assert [(a.step, a.layer, a.severity) for a in found] == [
        (told, "fc0", Severity.WARNING),
        (told, "fc1", Severity.WARNING),
    ]


@pytest.mark.parametrize(
    ("start", "now", "before", "left", "told"),
    [
        (0.9 * DIM, 0.9 * STILL_DIM, None, 0.95, True),
        (0.9 * DIM, 0.9 * STILL_DIM, 0.95, 0.95, True),
        (0.9 * DIM, 1.1 * STILL_DIM, 0.95, 0.95, False),  # it has woken up
        (0.9 * DIM, 0.9 * DIM, 0.95, 0.85, False),  # it learns
        (1.1 * DIM, 0.9 * DIM, 0.95, 0.95, False),
        (0.9 * DIM, 0.9 * DIM, None, NAN, False),
    ],
)
def test_little_difference_at_the_start_counts_where_nothing_was_learned_since(
    start: float, now: float, before: float | None, left: float, told: bool
) -> None:
    run = slow(layers(NORMS), left, start=seen(start, moved=1e-3), later=seen(now, moved=1e-3), before=before)
    after = [stats(LOOK + i, layers(NORMS)) for i in range(1, 10)]
    found = told_by(Vanishing(), [*run, *after])
    expected = [(LOOK + Vanishing().patience - 1, name, Severity.ERROR) for name in ("fc0", "fc1")]
    assert [(a.step, a.layer, a.severity) for a in found] == expected * told


def test_it_is_over_when_something_is_learned() -> None:
    run = slow(layers(NORMS), 0.95, start=seen(0.9 * DIM, moved=1e-3), later=seen(0.9 * DIM), before=0.95)
    rest = [stats(LOOK + i, layers(NORMS)) for i in range(1, 101)]
    learned = stats(LOOK + 101, layers(NORMS), output_error=0.5, **seen(0.9 * DIM))
    after = [stats(LOOK + i, layers(NORMS)) for i in range(102, 110)]
    found = told_by(Vanishing(), [*run, *rest, learned, *after])
    assert [a.severity for a in found] == [Severity.ERROR] * 2 + [Severity.INFO] * 2


def test_what_the_data_have_in_common_is_no_fault() -> None:
    """All states of an episode are nearly the same, and the last layer is given no less of the difference."""
    alike = {**seen(1e-4), "variation": np.array([1e-4, 1e-4, NAN, 0.9e-4])}
    assert check(Vanishing(), [alike] * 16) == []


def test_places_that_arrive_alike_leave_single_layers_without_a_gradient() -> None:
    found = check(Vanishing(), [seen(0.5, within=1e-14)] * 16, norms=[1.0, 1e-7, 0.5, 1.0])
    (alert,) = found
    assert (alert.layer, alert.severity) == ("fc1", Severity.ERROR)
    assert alert.message.endswith("the places of a sequence look alike to it")
    assert check(Vanishing(), [seen(0.5, within=1e-3)] * 16, norms=[1.0, 1e-7, 0.5, 1.0]) == []


def test_a_layer_that_nearly_all_examples_give_nothing() -> None:
    rule = Dead()
    found = check(rule, [seen(0.9, nothing=0.97)] * 16)
    assert [(a.step, a.layer, a.severity) for a in found] == [
        (rule.patience - 1, "fc0", Severity.ERROR),
        (rule.patience - 1, "fc1", Severity.ERROR),
    ]
    assert found[0].message == "fc1, fc0: 97% of the examples give a layer behind it nothing but zeros"
    assert rule.open_layers == ("fc0", "fc1")


@pytest.mark.parametrize(
    ("nothing", "left", "told"), [(0.3, 0.99, True), (0.2, 0.99, False), (0.3, 0.9, False), (0.3, NAN, False)]
)
def test_fewer_examples_count_where_nothing_was_learned(nothing: float, left: float, told: bool) -> None:
    look = seen(0.9, nothing=nothing)
    found = told_by(Dead(), slow(layers(NORMS), left, start=look, later=look))
    assert [(a.step, a.layer) for a in found] == [(LOOK, "fc0"), (LOOK, "fc1")] * told
    assert all(a.message.endswith("30% of the examples give a layer behind it nothing but zeros") for a in found)


@pytest.mark.parametrize(("nothing", "told"), [(1.0, True), (0.7, False)])
def test_one_late_look_is_enough_where_nothing_was_learned(nothing: float, told: bool) -> None:
    steps = slow(layers(NORMS), 0.99, start=seen(0.9), later=seen(0.9, nothing=nothing))
    assert [(a.step, a.layer, a.severity) for a in told_by(Dead(), steps)][:2] == [
        (LOOK, "fc0", Severity.ERROR),
        (LOOK, "fc1", Severity.ERROR),
    ] * told


def test_its_words_are_of_the_share_that_counts() -> None:
    look = {**seen(0.9), "given_nothing": np.array([0.0, 0.3, NAN, 0.9])}
    found = told_by(Dead(), [stats(step, layers(NORMS), **look) for step in range(16)])
    assert {a.message.partition(": ")[2][:3] for a in found} == {"90%"}


@pytest.mark.parametrize(
    "looks",
    [
        [seen(0.9, nothing=0.79)] * 16,
        [seen(0.9, nothing=0.97)] * 5 + [seen(0.9)] + [seen(0.9, nothing=0.97)] * 5,
        [None] * 16,
    ],
    ids=["some", "not in a row", "nobody looked"],
)
def test_what_lets_examples_through(looks: list[dict[str, Any] | None]) -> None:
    assert check(Dead(), looks) == []


def test_it_lives_again() -> None:
    found = check(Dead(recovery=1), [seen(0.9, nothing=0.97)] * 8 + [None] * 5 + [seen(0.9)] * 3)
    assert [(a.step, a.severity) for a in found[2:]] == [(13, Severity.INFO)] * 2


@pytest.mark.parametrize(
    ("nothing", "variation", "expected"),
    [
        ([0.9, 0.9, 0.9], [1.0, 1.0, 1.0], 1),  # of the data the first layer is given, zeros may be a part
        ([0.0, 0.9, 0.0], [1.0, 1.0, 1.0], None),  # there is a way around it
        ([0.0, 0.9, 0.0], [1.0, 1.0, 0.0], 1),  # a bias alone
        ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], None),  # alike, but there
        ([NAN, NAN, NAN], [NAN, NAN, NAN], None),
        ([], [], None),
    ],
)
def test_the_first_layer_that_is_given_nothing(
    nothing: list[float], variation: list[float], expected: int | None
) -> None:
    assert first_starved(np.array(nothing), np.array(variation), 0.8) == expected


def test_a_step_that_is_judged_is_looked_at_once() -> None:
    """A layer that vanishes by its norm has every step judged, and a look must not count twice for it."""
    found = check(Vanishing(), [seen(1e-4)] * (LOOKS - 1) + [None] * 20, norms=[1e-6, 0.1, 0.5, 1.0])
    assert {a.layer for a in found} == {"fc0"}


def test_before_any_step_and_without_layers_nothing_is_known() -> None:
    signal = Signal()
    signal.look(history_of([{}]))
    signal.look(history_of([stats(0, {}, variation=np.empty(0), variation_within=np.empty(0))]))
    assert (signal.is_lost, signal.is_lost_within) == (False, False)
    assert np.isnan(signal.share)
    for rule in (Vanishing(), Dead()):
        assert list(each(rule.check(history_of([])))) == []


@pytest.mark.parametrize(
    ("rule", "norm", "expected"),
    [
        (Vanishing, NAN, set()),  # without a step that is finite there is no usual norm
        (Vanishing, 0.0, {"fc0", "fc1"}),
        (Vanishing, None, {"fc1"}),
        (Dead, NAN, {"fc1"}),
        (Dead, INF, {"fc1"}),
        (Dead, 0.0, {"fc0", "fc1"}),
        (Dead, None, {"fc1"}),
    ],
)
def test_gradients_that_are_no_number(rule: type[StepRule], norm: float | None, expected: set[str]) -> None:
    found = check(rule(), [seen(1e-4, nothing=0.97)] * 16, norms=[norm, 0.1, 0.5, 1.0])
    assert {a.layer for a in found if a.severity > Severity.INFO} == expected
    assert all("exactly zero" not in a.message for a in found if a.value != 0)


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name = "x" * 300
    history, rule, found = history_of([]), Dead(), []
    for step in range(8):
        history.append(stats(step, dict(zip([name, "b", "c", "d"], NORMS)), **seen(0.9, nothing=0.97)))
        found += each(rule.check(history))
    assert found[0].message == f"b, {name}: 97% of the examples give a layer behind it nothing but zeros"


@pytest.mark.parametrize(("shallow", "severity"), [(4, Severity.WARNING), (3, Severity.ERROR)])
def test_a_few_layers_may_find_out(shallow: int, severity: Severity, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sigmoids they learn the mean first, and the rest later on."""
    monkeypatch.setattr(vanishing, "SHALLOW", shallow)
    found = check(Vanishing(), [seen(1e-4)] * 16, norms=[0.01, 0.1, 0.1, 1.0])
    assert {a.severity for a in found} == {severity}
