"""A chart as SVG: lines for what theory says, dots for what was measured, each named at its right end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 20, 50
"""Margins; names stand in the right one."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which the colour-blind can tell apart."""

ROW = 15
"""Between two names, at least."""


@dataclass(frozen=True)
class Curve:
    """A line, dots, or both in one colour.

    Args:
        name: at the right of its last point.
        line: (x, y) of a line.
        dots: (x, y) of dots.
        dashed: whether the line is.
    """

    name: str
    line: Sequence[tuple[float, float]] = ()
    dots: Sequence[tuple[float, float]] = ()
    dashed: bool = False


def chart(curves: Sequence[Curve], x_name: str, y_name: str) -> str:
    """Draw them, x on a linear and y on a log axis.

    >>> chart([Curve("half", [(0, 1), (1, 0.5)])], "layer", "gain").count("<polyline")
    1
    """
    points = [point for curve in curves for point in (*curve.line, *curve.dots)]
    x_range = min(x for x, _ in points), max(x for x, _ in points)
    decades = math.floor(min(math.log10(y) for _, y in points)), math.ceil(max(math.log10(y) for _, y in points))
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        share_x = (x - x_range[0]) / (x_range[1] - x_range[0])
        share_y = (math.log10(y) - decades[0]) / (decades[1] - decades[0])
        return LEFT + across * share_x, TOP + down * (1 - share_y)

    parts = list(_axes(x_range, decades, place, x_name, y_name))
    ends: list[tuple[float, float, str, str]] = []
    for curve, colour in zip(curves, COLOURS):
        if curve.line:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve.line))
            dash = ' stroke-dasharray="6 4"' if curve.dashed else ""
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        for x, y in (place(*point) for point in curve.dots):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" fill="{colour}"/>')
        x, y = place(*max((*curve.line, *curve.dots)))
        ends.append((y, x, curve.name, colour))
    parts += [_text(x + 10, y + 4, name, "start", colour) for y, x, name, colour in _apart(ends)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _axes(
    x_range: tuple[float, float],
    decades: tuple[int, int],
    place: Callable[[float, float], tuple[float, float]],
    x_name: str,
    y_name: str,
) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    every = math.ceil((decades[1] - decades[0]) / 8)
    for decade in range(decades[0], decades[1] + 1, every):
        y = place(x_range[0], 10.0**decade)[1]
        yield f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{"#999" if decade == 0 else "#ddd"}"/>'
        yield _text(LEFT - 8, y + 4, f"{10.0**decade:g}", "end")
    for x in _ticks(*x_range):
        across = place(x, 1.0)[0]
        yield f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="#999"/>'
        yield _text(across, bottom + 19, f"{x:g}", "middle")
    yield f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#999"/>'
    yield _text((LEFT + right) / 2, HEIGHT - 10, x_name, "middle")
    yield f'<g transform="rotate(-90)">{_text(-(TOP + bottom) / 2, 16, y_name, "middle")}</g>'


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers."""
    rough = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _apart(ends: Iterable[tuple[float, float, str, str]]) -> Iterator[tuple[float, float, str, str]]:
    """The same (y, x, name, colour) from top to bottom, pushed down where they would overlap."""
    last = -math.inf
    for y, x, name, colour in sorted(ends):
        last = max(y, last + ROW)
        yield last, x, name, colour


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
