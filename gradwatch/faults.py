"""What goes wrong in the monitor stays in the monitor: training goes on, with one warning each."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from gradwatch.tags import printable

T = TypeVar("T")
U = TypeVar("U")

DROPPED = "it is dropped"
"""The consequence for what is not tried again; two parts of one name are then told of one by one."""

LONGEST = 1000
"""Characters of a message: some of torch's hold a whole tensor."""

LIMIT = 3
"""Failures of one part in a row before it is switched off for good."""


class GradwatchWarning(UserWarning):
    """Something in the monitor failed; training was not touched."""


class StopTraining(RuntimeError):  # noqa: N818 - what it is for, as StopIteration
    """Raised on purpose, by a policy whose user asked for it: no fault of the monitor, so nothing holds it back."""


class Faults:
    """Runs what may fail.

    Args:
        strict: raise instead of warning, for tests and continuous integration.

    Example:
        >>> faults = Faults(strict=False)
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     result = faults.run("sink Broken", "it is dropped", lambda x: x / 0, 1, otherwise=-1)
        >>> result, str(caught[0].message)
        (-1, 'gradwatch: sink Broken failed, it is dropped: ZeroDivisionError: division by zero')
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._told: set[str] = set()
        """Parts of which it was told."""
        self._in_a_row: Counter[str] = Counter()

    def run(self, part: str, consequence: str, action: Callable[..., T], *args: object, otherwise: U) -> T | U:
        """The result of ``action(*args)``; when it raises, warn (once of a part that stays); return ``otherwise``."""
        try:
            result = action(*args)
        except (GradwatchWarning, StopTraining):  # a warning of a part within, by a user who has warnings raised
            raise
        except Exception as error:
            if self.strict:
                raise
            self._in_a_row[part] += 1
            if part not in self._told or consequence == DROPPED:
                self._told.add(part)
                message = f"{part} failed, {consequence}: {type(error).__name__}: {_words(error)}"
                warn(message)
            return otherwise
        if self._in_a_row:
            self._in_a_row.pop(part, None)
        return result

    def exhausted(self, part: str) -> bool:
        """Whether ``part`` failed so often in a row that it is no longer worth trying; the first time it warns."""
        spent = self._in_a_row[part] >= LIMIT
        if spent and (off := f"{part} is switched off") not in self._told:
            self._told.add(off)
            warn(f"{off}: it failed {LIMIT} times in a row")
        return spent


@lru_cache
def part_of(kind: str, of: type) -> str:
    """What a rule, a cause or a sink of this type is called where it fails.

    >>> part_of("sink", Faults)
    'sink Faults'
    """
    return f"{kind} {of.__name__}"


def warn(message: str) -> None:
    """Issue a GradwatchWarning at the line of the user's that led here.

    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     warn("it is late")
    >>> caught[0].category.__name__, str(caught[0].message)
    ('GradwatchWarning', 'gradwatch: it is late')
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("gradwatch", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(f"gradwatch: {message}", GradwatchWarning, stacklevel=level + 1)


def _words(error: Exception) -> str:
    """The message of ``error``, safe to print; making it is the user's code too, where the error is the user's."""
    try:
        words = "\n".join(printable(line) for line in str(error).split("\n"))
        return words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
    except Exception:
        return "(no message: str() of the error failed)"
