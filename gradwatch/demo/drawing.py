"""Numbers as small pictures in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

DECADES = (-12, 4)
"""The axis of every bar, so that the bars of two runs can be compared: from 1e-12 to 1e+04."""

WIDTH = 32
LEVELS = "▁▂▃▄▅▆▇█"


def bar(value: float) -> str:
    """The length is log10 of ``value`` on the axis DECADES; nothing for zero and NaN.

    Example:
        >>> bar(1e-8), len(bar(1e4)), bar(0.0)
        ('████████', 32, '')
    """
    if not value > 0:
        return ""
    low, high = DECADES
    share = (math.log10(min(value, 10.0**high)) - low) / (high - low)
    return LEVELS[-1] * max(1, round(WIDTH * share))


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """A line of ``width`` blocks on a log axis between the values' own limits; ! where a value is not finite.

    Example:
        >>> sparkline([1.0, 10.0, 100.0, math.nan])
        '▁▅█!'
    """
    shown = values if len(values) <= width else [values[i * len(values) // width] for i in range(width)]
    logs = [math.log10(v) if 0 < v < math.inf else -math.inf if v == 0 else math.nan for v in shown]
    known = [v for v in logs if math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    return "".join("!" if math.isnan(v) else LEVELS[_level(v, low, high)] for v in logs)


def _level(value: float, low: float, high: float) -> int:
    return int((len(LEVELS) - 1) * (value - low) / (high - low) + 0.5) if value > low else 0
