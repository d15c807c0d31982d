"""What goes wrong in the monitor stays in the monitor: training goes on, with one warning each."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from gradwatch.tags import printable

T = TypeVar("T")
U = TypeVar("U")

DROPPED = "it is dropped"
"""The consequence for what is not tried again; two parts of one name are then told of one by one."""

LIMIT = 3
"""Failures of one part before it is switched off for good."""


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
        self.counts: Counter[str] = Counter()

    def run(self, part: str, consequence: str, action: Callable[..., T], *args: object, otherwise: U) -> T | U:
        """The result of ``action(*args)``; when it raises, warn (once of a part that stays); return ``otherwise``."""
        try:
            return action(*args)
        except (GradwatchWarning, StopTraining):  # a warning of a part within, by a user who has warnings raised
            raise
        except Exception as error:
            if self.strict:
                raise
            self.counts[part] += 1
            if self.counts[part] == 1 or consequence == DROPPED:
                message = f"gradwatch: {part} failed, {consequence}: {type(error).__name__}: {_words(error)}"
                warnings.warn(message, GradwatchWarning, stacklevel=2)
            return otherwise

    def exhausted(self, part: str) -> bool:
        """Whether ``part`` failed so often that it is no longer worth trying."""
        return self.counts[part] >= LIMIT


def _words(error: Exception) -> str:
    """The message of ``error``, safe to print; making it is the user's code too, where the error is the user's."""
    try:
        return "\n".join(printable(line) for line in str(error).split("\n"))
    except Exception:
        return "(no message: str() of the error failed)"
