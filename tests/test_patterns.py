from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwatch.patterns import (
    as_patterns,
    check_number,
    check_patterns,
    check_per_layer,
    check_whole_number,
    matches,
    per_layer,
)

NAMES = ("encoder.0", "encoder.1", "head")


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("encoder.0", ["encoder.*"], True),
        ("encoder", ["encoder.*"], False),
        ("encoder.0.attention", ["encoder.*"], True),
        ("Encoder.0", ["encoder.*"], False),
        ("head", ["encoder.*", "h??d"], True),
        ("head", [], False),
        ("", ["*"], True),
        ("fc[1]", ["fc[[]1]"], True),
    ],
)
def test_matches(name: str, patterns: list[str], expected: bool) -> None:
    assert matches(name, patterns) is expected


def test_a_number_is_for_every_layer() -> None:
    found = per_layer(2, NAMES, default=0.0)
    assert found.dtype == np.float64
    assert found.tolist() == [2.0, 2.0, 2.0]
    assert per_layer(2, (), default=0.0).shape == (0,)


def test_the_first_pattern_that_matches_counts() -> None:
    assert per_layer({"*.1": 1.0, "encoder.*": 2.0}, NAMES, default=3.0).tolist() == [2.0, 1.0, 3.0]
    assert per_layer({}, NAMES, default=3.0).tolist() == [3.0, 3.0, 3.0]


def test_a_pattern_without_a_layer_is_named() -> None:
    check_patterns("include", ["*"], NAMES)
    with pytest.raises(ValueError, match=r"^include: the pattern 'decoder\.\*' matches no layer.* head$"):
        check_patterns("include", ["head", "decoder.*"], NAMES)


def test_only_some_of_many_layers_are_named() -> None:
    names = [f"fc{i}" for i in range(1000)]
    with pytest.raises(ValueError, match=r"fc0, .*fc7, \.\.\.$"):
        check_patterns("include", ["x"], names)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, None), ("encoder.*", ("encoder.*",)), (["a", "b"], ("a", "b")), ((), ()), (iter(["a"]), ("a",))],
)
def test_patterns_as_a_tuple(given: Any, expected: tuple[str, ...] | None) -> None:
    assert as_patterns("include", given) == expected


@pytest.mark.parametrize("given", [3, [3], ["a", None], b"a", object()])
def test_patterns_of_another_type_are_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"include takes patterns such as 'encoder\.\*', got"):
        as_patterns("include", given)


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int64(1)])
def test_numbers_within_their_limits(value: object) -> None:
    check_number("x", value, above=0, at_most=1)
    check_number("x", value, at_least=value)
    check_number("x", value)


@pytest.mark.parametrize("value", ["1", None, True, 1j, [1.0], {"*": 1.0}, np.ones(1)])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"x must be a number, got"):
        check_number("x", value)


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        (0.0, {"above": 0}, "x must be above 0, got 0.0"),
        (-1, {"at_least": 0}, "x must be at least 0, got -1"),
        (2.0, {"above": 0, "at_most": 1}, "x must be above 0 and at most 1, got 2.0"),
        (float("nan"), {"above": 0}, "x must be above 0, got nan"),
        (float("nan"), {}, "x must be a number, got nan"),
    ],
)
def test_numbers_out_of_range_are_refused(value: float, limits: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_number("x", value, **limits)


def test_one_number_for_each_pattern() -> None:
    check_per_layer("x", {"encoder.*": 1.0, "*": 2}, above=0)
    check_per_layer("x", 1.0, above=0)
    with pytest.raises(ValueError, match=r"^x\['head'\] must be above 0, got -2$"):
        check_per_layer("x", {"encoder.*": 1.0, "head": -2}, above=0)
    with pytest.raises(TypeError, match=r"^x\['head'\] must be a number, got 'a'$"):
        check_per_layer("x", {"head": "a"})
    with pytest.raises(TypeError, match=r"^x takes patterns such as 'encoder\.\*', got 3$"):
        check_per_layer("x", {3: 1.0})
    with pytest.raises(TypeError, match=r"^x must be a number, got 'a'$"):
        check_per_layer("x", "a")


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None, float("nan")])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    check_whole_number("x", 1, at_least=1)
    error = ValueError if type(value) in (int, float) else TypeError
    with pytest.raises(error, match=r"^x must be a whole number from 1, got"):
        check_whole_number("x", value, at_least=1)
