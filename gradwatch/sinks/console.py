"""Console: alerts as they come, in words."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from itertools import groupby

from gradwatch.records import Alert, Report, Severity
from gradwatch.tags import printable
from gradwatch.verdict import SHOWN

logger = logging.getLogger("gradwatch")

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}
STYLES = {Severity.INFO: "green", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}


class Console:
    """Says what is found, one line per rule and step; a healthy run says nothing.

    Lines go to the logger "gradwatch". On a terminal, where rich is installed and logging is not set up, they are
    printed in colour instead.

    Args:
        min_severity: the least severity that is said; recoveries have INFO.

    Raises:
        ValueError: when ``min_severity`` is no severity.

    Example:
        >>> for severity, line in lines([Alert(7, "dead", "fc", Severity.WARNING, 0.0, 0.0, "fc: exactly zero")]):
        ...     print(line)
        step 7  WARNING dead  fc: exactly zero
    """

    may_wait = True

    def __init__(self, min_severity: Severity = Severity.INFO) -> None:
        if min_severity not in tuple(Severity):
            raise ValueError(f"Console: min_severity must be a gradwatch.Severity, got {min_severity!r}")
        self._min_severity = min_severity

    def write(self, report: Report) -> None:
        for severity, line in lines(a for a in report.alerts if a.severity >= self._min_severity):
            _say(severity, line)
        for diagnosis in report.diagnoses[:1]:
            _say(report.severity, printable(f"why: {'; '.join(diagnosis.evidence)}"))

    def close(self) -> None:
        """Nothing to do."""


def _say(severity: Severity, line: str) -> None:
    if sys.stderr.isatty() and not logger.hasHandlers():
        try:
            from rich.console import Console as RichConsole
            from rich.text import Text
        except ImportError:
            pass
        else:
            words = Text(line, style=STYLES[severity])  # a str would be searched for markup and emoji
            RichConsole(stderr=True).print(words, soft_wrap=True)  # no line ends within a name
            return
    logger.log(_LEVELS[severity], "%s", line)


def lines(alerts: Iterable[Alert]) -> list[tuple[Severity, str]]:
    """One line for the alerts of one rule and severity at one step; many layers are counted, not listed."""
    found = []
    for (step, severity, rule), group in groupby(alerts, key=lambda a: (a.step, a.severity, a.rule)):
        members = list(group)
        more = f" (and {len(members) - SHOWN} more layers)" if len(members) > SHOWN else ""
        text = "; ".join(a.message for a in members[:SHOWN])
        found.append((severity, printable(f"step {step}  {severity.name} {rule}  {text}{more}")))
    return found
