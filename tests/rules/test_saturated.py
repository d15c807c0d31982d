from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, Severity
from gradwatch.rules import Saturated
from tests.histories import LOOK, NAN, history_of, layers, slow, stats, told_by


def check(rule: Saturated, *shares: list[float] | None, before: int = 0) -> list[Alert]:
    """What ``rule`` says of these shares in three layers, None where nobody looked."""
    fine = layers([1.0, 1.0, 1.0])
    history, found = history_of([fine] * before), []
    for share in shares:
        seen = {} if share is None else {"saturated": np.array(share)}
        history.append(stats(history.count, fine, **seen))
        found += rule.check(history)
    return found


def test_more_than_half_of_several_layers_from_the_start_is_an_error() -> None:
    (alert,) = check(Saturated(), *[[0.9, 0.8, NAN]] * 10)
    assert (alert.step, alert.layers, alert.severity) == (Saturated.patience - 1, ("fc0", "fc1"), Severity.ERROR)
    assert alert.message == "fc0, fc1: 90% of the outputs of its activation are saturated"


@pytest.mark.parametrize(
    ("shares", "layer", "severity"),
    [([0.9, 0.3, NAN], "fc0", Severity.WARNING), ([0.3, 0.9, NAN], "fc1", Severity.ERROR)],
)
def test_of_the_first_layer_alone_it_is_a_warning(shares: list[float], layer: str, severity: Severity) -> None:
    """Those behind it may learn; those before another may not."""
    (alert,) = check(Saturated(), *[shares] * 10)
    assert (alert.step, alert.layer, alert.severity) == (Saturated.patience - 1, layer, severity)


@pytest.mark.parametrize(
    ("left", "told"),
    [({"output_error": 0.75}, True), ({"output_error": 0.65}, False), ({"output_gradient": 0.2}, False)],
)
def test_what_has_learned_may_saturate(left: dict[str, float], told: bool) -> None:
    error = "output_error" in left
    fine, seen = layers([1.0, 1.0, 1.0]), {"saturated": np.array([0.9, 0.8, NAN])}
    first = {"output_error": 1.0} if error else {"output_gradient": 1.0}
    run = [stats(i, fine, **{k: v + 0.01 * i for k, v in first.items()}) for i in range(5)]
    run += [stats(5 + i, fine, **left) for i in range(200)] + [stats(205 + i, fine, **seen) for i in range(10)]
    assert bool(told_by(Saturated(), run)) is told


def test_later_it_is_a_warning() -> None:
    (alert,) = check(Saturated(), *[[0.9, 0.3, NAN]] * 10, before=100)
    assert alert.severity is Severity.WARNING


@pytest.mark.parametrize(("left", "severity"), [(0.99, Severity.ERROR), (0.9, Severity.WARNING)])
def test_later_it_is_an_error_where_nothing_was_learned(left: float, severity: Severity) -> None:
    """Since it was told, that is: gates may close as soon as a network has left its plateau."""
    run = slow(layers([1.0, 1.0, 1.0]), left)
    seen = {"saturated": np.array([0.9, 0.3, NAN])}
    run += [replace(run[-1], step=LOOK + 1 + i, output_error=left if i == 120 else None, **seen) for i in range(122)]
    warning, *raised = told_by(Saturated(), run)
    assert (warning.step, warning.severity) == (LOOK + Saturated.patience, Severity.WARNING)
    assert [(a.step, a.severity) for a in raised] == [(LOOK + 121, severity)] * (severity is Severity.ERROR)


def test_what_an_earlier_look_has_found_fine_is_a_warning() -> None:
    """Whatever other layers were."""
    fine, later = [0.9, 0.3, 0.9, NAN], [0.9, 0.9, 0.9, NAN]  # three activations and the last layer
    run = [stats(i, layers([1.0] * 4), saturated=np.array(fine if i < 6 else later)) for i in range(12)]
    assert [(a.layer, a.severity) for a in told_by(Saturated(), run)] == [
        ("fc0", Severity.ERROR),
        ("fc2", Severity.ERROR),
        ("fc1", Severity.WARNING),
    ]


def test_the_last_layer_may_be() -> None:
    assert check(Saturated(), *[[0.1, NAN, 1.0]] * 10) == []


def test_steps_at_which_nobody_looked_count_neither_way() -> None:
    bad = [0.9, NAN, NAN]
    assert [a.step for a in check(Saturated(patience=2, recovery=1), bad, None, bad, None, [0.1, NAN, NAN])] == [2, 4]


def test_the_limit_is_exclusive_and_may_differ() -> None:
    assert check(Saturated(patience=1), [0.5, NAN, NAN]) == []
    assert [a.layer for a in check(Saturated(share={"fc1": 0.2}, patience=1), [0.4, 0.4, NAN])] == ["fc1"]


@pytest.mark.parametrize(("share", "error"), [(0.0, ValueError), (1.1, ValueError), ("much", TypeError)])
def test_arguments_out_of_range(share: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^Saturated: share must be "):
        Saturated(share=share)
