"""Layers of wide random networks against mean-field theory; the whole grid is in docs/theory.md."""

from __future__ import annotations

import math
import statistics

import pytest

from tests.theory.grid import GRID, Point, point
from tests.theory.oracle import ERF, RELU, SIGMOID, TANH

CHOSEN = {
    "tanh, nearly critical": (TANH, 1.3, 0.3),
    "tanh, chaotic": (TANH, 2.5, 0.05),
    "erf, ordered": (ERF, 1.0, 0.3),
    "erf, chaotic": (ERF, 2.0, 0.05),
    "relu, He": (RELU, math.sqrt(2), 0.0),
    "sigmoid, unit variance": (SIGMOID, 1.0, 0.0),
    "sigmoid, large weights": (SIGMOID, 8.0, 0.5),
}


@pytest.fixture(scope="module")
def points() -> dict[str, Point]:
    return {name: point(*place) for name, place in CHOSEN.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_each_layer_passes_what_theory_says(name: str, points: dict[str, Point]) -> None:
    found = points[name]
    assert found.measured == pytest.approx(found.chi, rel=0.025)
    assert found.weight == pytest.approx(found.sigma_w**2, rel=0.01)
    assert found.passed == pytest.approx(found.slope, rel=0.02)


@pytest.mark.slow
def test_half_of_them_much_closer(points: dict[str, Point]) -> None:
    assert statistics.median(abs(p.error) for p in points.values()) < 0.005


def test_the_grid_has_each_activation_on_both_sides_of_the_critical_line() -> None:
    assert len(GRID) >= 50
    assert set(CHOSEN.values()) <= set(GRID)
