"""docs/theory.md: its example runs, and its numbers are those of the oracle and of the grid's goals."""

from __future__ import annotations

import doctest
import re
from fractions import Fraction

import pytest

from tests.theory.grid import END, GRID, PAGE, START
from tests.theory.oracle import RELU, SIGMOID, TANH, Activation, chi

TEXT = PAGE.read_text(encoding="utf-8")


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of all rows of that many columns, without heads."""
    found = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in found if len(row) == columns and not row[0].startswith("-")]


def test_its_example_runs() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False)
    assert (results.failed, results.attempted > 5) == (0, True)


def test_the_textbook_table_is_what_the_oracle_says() -> None:
    activations: dict[str, Activation] = {a.name: a for a in (RELU, SIGMOID, TANH)}
    checked = 0
    for name, variance, passed, layer, after in rows(TEXT, 5):
        if name in activations:
            weights = float(Fraction(variance))
            gain = chi(activations[name], weights**0.5, 0.0)
            assert float(layer) == pytest.approx(gain, rel=5e-3)
            assert float(passed) == pytest.approx(gain / weights, rel=5e-3)
            assert float(after) == pytest.approx(gain**5, rel=5e-2)  # ten layers of the norm
            checked += 1
    assert checked == 7


def test_the_grid_on_it_is_whole_and_reaches_its_goals() -> None:
    grid = TEXT.split(START)[1].split(END)[0]
    points = [row for row in rows(grid, 9) if re.fullmatch(r"[\d.]+", row[1])]
    assert len(points) == len(GRID) >= 50
    errors, weights, activations = ([abs(float(row[i].rstrip("%"))) for row in points] for i in (6, 7, 8))
    assert max(errors) < 2.5
    assert sorted(errors)[len(errors) // 2] < 0.5
    assert (max(weights) < 1, max(activations) < 2) == (True, True)
