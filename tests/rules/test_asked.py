from __future__ import annotations

import pytest

from gradwatch.rules.asked import FIRST, Asked
from tests.histories import INF, NAN, history_of, layers, stats

KNOWN = {"output_gradient": 0.5, "loss_gradient": 1.0}


@pytest.mark.parametrize(
    ("seen", "known"),
    [
        ({}, True),
        ({"half": False}, True),
        ({"half": True}, False),
        ({"output_error": NAN}, True),
        ({"output_error": 0.5}, False),
        ({"loss_gradient": NAN}, False),
        ({"loss_gradient": None}, False),
        ({"output_gradient": INF}, False),
        ({"output_gradient": 0.0, "loss_gradient": 0.0}, True),
    ],
)
def test_where_it_is_known(seen: dict[str, float | bool | None], known: bool) -> None:
    assert Asked.is_known(stats(0, layers([1.0]), **{**KNOWN, **seen})) is known


def test_the_mean_of_the_looks_in_a_row_relative_to_the_largest_of_the_first() -> None:
    asked, run = Asked(), [1.0, 4.0, 2.0, 2.0, 2.0, 8.0, 1.0, 3.0]
    for number, value in enumerate(run):
        history = history_of([stats(0, layers([1.0]), **{**KNOWN, "loss_gradient": value})] * (number + 1))
        asked.look(history, seen=number != FIRST)
    assert (asked["row"], asked["since"], asked.left) == (2, FIRST + 1, (1.0 + 3.0) / 2 / 4.0)


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_nothing_is_left_to_tell_before_there_was_a_sign(first: float) -> None:
    asked = Asked()
    history = history_of([stats(0, layers([1.0]), **{**KNOWN, "loss_gradient": first})])
    for _ in range(FIRST):
        asked.look(history, seen=True)
    assert asked.left != asked.left
    asked.look(history, seen=True)
    assert asked.left == 1.0 or first == 0.0
