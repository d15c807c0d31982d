"""Memory: the reports of the last steps, in a list."""

from __future__ import annotations

from collections import deque

from gradwatch.patterns import check_whole_number
from gradwatch.records import Report


class Memory:
    """Keeps the newest reports, for notebooks and tests; of several ranks each keeps its own.

    Args:
        max_reports: number of reports kept, at least 1.

    Raises:
        ValueError: when ``max_reports`` is below 1.

    Example:
        >>> memory = Memory()
        >>> memory.write(Report("healthy", severity=0))
        >>> [report.verdict for report in memory.reports]
        ['healthy']
    """

    every_rank = True

    def __init__(self, max_reports: int = 10_000) -> None:
        check_whole_number("Memory: max_reports", max_reports, at_least=1)
        self.reports: deque[Report] = deque(maxlen=max_reports)

    def write(self, report: Report) -> None:
        self.reports.append(report)

    def close(self) -> None:
        """Nothing to do: the reports stay readable."""
