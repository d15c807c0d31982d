"""Shell-style patterns over layer names: ``"encoder.*"``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import TypeAlias

import numpy as np

from gradwatch.records import FloatArray

PerLayer: TypeAlias = "float | Mapping[str, float]"
"""One number for every layer, or a number for each pattern; the first pattern that matches a layer's name counts."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether ``name`` matches any of ``patterns``.

    >>> matches("encoder.0.attention", ["decoder.*", "encoder.*"])
    True
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(argument: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Raise ValueError naming ``argument`` when one of ``patterns`` matches none of ``names``."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise ValueError(f"{argument}: the pattern {pattern!r} matches no layer; the layers are: {shown}")


def as_patterns(argument: str, patterns: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """``patterns`` as a tuple of strings; a single string is one pattern. Raises TypeError for anything else."""
    if patterns is None:
        return None
    given = tuple(patterns) if isinstance(patterns, Iterable) and not isinstance(patterns, str) else (patterns,)
    for pattern in given:
        if not isinstance(pattern, str):
            raise TypeError(f"{argument} takes patterns such as 'encoder.*', got {pattern!r}")
    return given


def per_layer(value: PerLayer, names: Sequence[str], default: float) -> FloatArray:
    """``value`` spread over the layers, float64 [L]; ``default`` where no pattern matches.

    >>> per_layer({"encoder.*": 1e-9, "*": 1e-7}, ["encoder.0", "head"], default=0.0).tolist()
    [1e-09, 1e-07]
    """
    if not isinstance(value, Mapping):
        return np.full(len(names), float(value))
    found = ((v for pattern, v in value.items() if fnmatchcase(name, pattern)) for name in names)
    return np.array([float(next(hits, default)) for hits in found])


def check_number(
    argument: str,
    value: object,
    *,
    above: float = -np.inf,
    at_least: float = -np.inf,
    at_most: float = np.inf,
) -> None:
    """Raise TypeError or ValueError naming ``argument``, its value and what is allowed.

    Args:
        argument: what to call it in the error.
        value: what should be a number.
        above: exclusive lower limit.
        at_least: inclusive lower limit.
        at_most: inclusive upper limit.
    """
    limits = [
        f"{word} {limit:g}"
        for word, limit in (("above", above), ("at least", at_least), ("at most", at_most))
        if np.isfinite(limit)
    ]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = np.nan
    if not (number > above or above == -np.inf) or not at_least <= number <= at_most:
        raise ValueError(f"{argument} must be {' and '.join(limits) or 'a number'}, got {value!r}")


def check_per_layer(argument: str, value: object, **limits: float) -> None:
    """The same as :func:`check_number`, for one number or a mapping from pattern to number."""
    if not isinstance(value, Mapping):
        return check_number(argument, value, **limits)
    as_patterns(argument, value)
    for pattern, number in value.items():
        check_number(f"{argument}[{pattern!r}]", number, **limits)
    return None


def check_whole_number(argument: str, value: object, at_least: int) -> None:
    """Raise TypeError or ValueError naming ``argument``, its value and what is allowed."""
    error = TypeError if isinstance(value, bool) or not isinstance(value, Real) else ValueError
    if error is TypeError or not isinstance(value, Integral) or int(value) < at_least:
        raise error(f"{argument} must be a whole number from {at_least}, got {value!r}")
