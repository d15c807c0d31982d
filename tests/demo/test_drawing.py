from __future__ import annotations

import math

import pytest

from gradwatch.demo.drawing import DECADES, LEVELS, WIDTH, bar, sparkline


@pytest.mark.parametrize("decade", range(DECADES[0] + 1, DECADES[1] + 1))
def test_each_decade_has_the_same_length(decade: int) -> None:
    assert len(bar(10.0**decade)) == (decade - DECADES[0]) * WIDTH // (DECADES[1] - DECADES[0])


@pytest.mark.parametrize(("value", "length"), [(0.0, 0), (math.nan, 0), (1e-300, 1), (1e300, WIDTH), (math.inf, WIDTH)])
def test_what_is_off_the_axis(value: float, length: int) -> None:
    assert len(bar(value)) == length


def test_equal_steps_of_the_logarithm_are_equal_steps_of_the_line() -> None:
    assert sparkline([10.0**k for k in range(len(LEVELS))]) == LEVELS


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([3.0, 3.0], "▁▁"), ([0.0, 1.0, 10.0], "▁▁█"), ([math.nan, math.inf], "!!"), ([0.0], "▁")],
)
def test_lines_without_a_range(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_a_long_line_is_sampled_evenly() -> None:
    assert sparkline([10.0 ** (i // 10) for i in range(80)], width=8) == LEVELS
