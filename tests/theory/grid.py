"""Measured against theory over a grid of activations and variances; run as a module it fills docs/theory.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from gradwatch.profile import BackwardProfile
from tests.theory.networks import at_fixed_point, inside, perceptron, profile_of
from tests.theory.oracle import ERF, RELU, SIGMOID, TANH, Activation, chi, fixed_point, mean_square_slope

PAGE = Path(__file__).parents[2] / "docs" / "theory.md"
START, END = "<!-- grid -->", "<!-- /grid -->"

INITIALISATIONS = 2
"""That each figure is the mean of."""

GRID: tuple[tuple[Activation, float, float], ...] = tuple(
    (activation, sigma_w, sigma_b)
    for activation, weights, biases in (
        (TANH, (1.0, 1.3, 1.76, 2.5, 4.0), (0.05, 0.3, 1.0)),
        (ERF, (0.8, 1.0, 1.3, 2.0, 3.0), (0.05, 0.3, 1.0)),
        (RELU, (0.5, 1.0, math.sqrt(2)), (0.0, 0.3)),
        (RELU, (1.6, 2.0), (0.0,)),  # above sqrt(2) the variance grows until no bias matters
        (SIGMOID, (1.0, 2.0, 4.0, 6.0, 8.0, 10.0), (0.0, 0.5)),
    )
    for sigma_w in weights
    for sigma_b in biases
)
"""(activation, sigma_w, sigma_b): 50 points from far below the critical line to far above it."""


class Point(NamedTuple):
    """Squared gains of one layer: what theory says, and what was measured."""

    activation: str
    sigma_w: float
    sigma_b: float
    q: float
    chi: float
    measured: float
    weight: float
    passed: float
    """By the activation."""
    slope: float
    """E[phi'^2] by theory."""

    @property
    def error(self) -> float:
        return self.measured / self.chi - 1

    @property
    def weight_error(self) -> float:
        return self.weight / self.sigma_w**2 - 1

    @property
    def passed_error(self) -> float:
        return self.passed / self.slope - 1


def point(activation: Activation, sigma_w: float, sigma_b: float) -> Point:
    """The mean over INITIALISATIONS of networks of 50 layers of 500, drawn anew for each point of GRID."""
    profiles = []
    torch.manual_seed(GRID.index((activation, sigma_w, sigma_b)))
    for _ in range(INITIALISATIONS):
        x = at_fixed_point(activation, sigma_w, sigma_b)
        profiles.append(inside(profile_of(perceptron(activation, sigma_w, sigma_b), x)))

    def mean(value: Callable[[BackwardProfile], float]) -> float:
        return statistics.fmean(map(value, profiles))

    q = fixed_point(activation, sigma_w, sigma_b)
    return Point(
        activation.name,
        sigma_w,
        sigma_b,
        q,
        chi(activation, sigma_w, sigma_b),
        mean(lambda p: p.gain_per_layer),
        mean(lambda p: p.factor("weight")),
        mean(lambda p: p.factor("activation")),
        mean_square_slope(activation, q),
    )


def summary(points: Sequence[Point]) -> str:
    """The errors of all points, in a small table."""
    rows = []
    for what, errors in (
        ("gain of a layer against chi_1", [p.error for p in points]),
        ("gain of the weights against sigma_w^2", [p.weight_error for p in points]),
        ("gain of the activation against E[phi'^2]", [p.passed_error for p in points]),
    ):
        sizes = [abs(error) for error in errors]
        rows.append(f"| {what} | {statistics.median(sizes):.2%} | {max(sizes):.2%} |")
    head = f"| of {len(points)} points | median error | largest error |\n| --- | ---: | ---: |"
    return "\n".join([head, *rows])


def table(points: Sequence[Point]) -> str:
    """A row for each point."""
    head = "| phi | sigma_w | sigma_b | q\\* | chi_1 | measured | error | weights | activation |"
    rows = [
        f"| {p.activation} | {p.sigma_w:.3g} | {p.sigma_b:g} | {_variance(p.q)} | {p.chi:.5f} | {p.measured:.5f} "
        f"| {p.error:+.2%} | {p.weight_error:+.2%} | {p.passed_error:+.2%} |"
        for p in points
    ]
    return "\n".join([head, "| --- |" + " ---: |" * 8, *rows])


def _variance(q: float) -> str:
    return f"{q:.4f}" if 1e-9 < q < 1e9 else "0" if q < 1 else "infinite"


def main() -> None:
    torch.set_num_threads(1)
    points = [point(*place) for place in GRID]
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    full = f"<details>\n<summary>All {len(points)} points</summary>\n\n{table(points)}\n\n</details>"
    text = f"{before}{START}\n{summary(points)}\n\n{full}\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")
    print(summary(points))


if __name__ == "__main__":
    main()
