"""Callback: hands each report to a function."""

from __future__ import annotations

from collections.abc import Callable as Function

from gradwatch.records import Report


class Callback:
    """Calls ``function(report)`` at every captured step.

    Args:
        function: what to call; when it raises, it is not called again and training goes on.

    Raises:
        TypeError: when ``function`` cannot be called.

    Example:
        >>> sink = Callback(lambda report: print(report.verdict))
        >>> sink.write(Report("healthy", severity=0))
        healthy
    """

    def __init__(self, function: Function[[Report], object]) -> None:
        if not callable(function):
            raise TypeError(f"Callback: function must be callable, got {function!r}")
        self._function = function

    def write(self, report: Report) -> None:
        self._function(report)

    def close(self) -> None:
        """Nothing to do."""
