"""Console: alerts as they come, in words."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby

from gradwatch.records import Alert, Diagnosis, Report, Severity
from gradwatch.tags import printable
from gradwatch.verdict import SHOWN, counted

logger = logging.getLogger("gradwatch")

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}
STYLES = {Severity.INFO: "green", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}


class Console:
    """Says what is found, a line per rule and step, and the likeliest cause with its remedy; of a healthy run nothing.

    Lines go to the logger "gradwatch" where logging is set up, else to stderr: on a terminal in colour, where rich is
    installed.

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
        self._why = ""
        """What was said last: a probed step explains what was explained before, often in the same words."""

    def write(self, report: Report) -> None:
        said = [a for a in report.alerts if a.severity >= self._min_severity]
        for severity, line in lines(said):
            _say(severity, line)
        severity = max([a.severity for a in said], default=report.severity)
        why = _why(report.diagnoses[0]) if report.diagnoses else self._why
        if severity >= self._min_severity and why != self._why:
            self._why = why
            _say(severity, why)

    def close(self) -> None:
        """Nothing to do."""


def _say(severity: Severity, line: str) -> None:
    if logger.hasHandlers():
        logger.log(_LEVELS[severity], "%s", line)
        return
    if _LEVELS[severity] < logger.level:  # without handlers logging would drop all but warnings
        return
    if sys.stderr.isatty():
        with suppress(ImportError):
            from rich.console import Console as RichConsole
            from rich.text import Text

            words = Text(line, style=STYLES[severity])  # a str would be searched for markup and emoji
            RichConsole(stderr=True).print(words, soft_wrap=True)  # no line ends within a name
            return
    print(line, file=sys.stderr)


def _why(diagnosis: Diagnosis) -> str:
    """
    >>> _why(Diagnosis("dead_units", 0.5, ("fc",), ("1 of 2 layers receives nothing",), "look behind fc"))
    'why: dead units (50%): 1 of 2 layers receives nothing; next: look behind fc'
    """
    cause = f"{diagnosis.cause.replace('_', ' ')} ({diagnosis.confidence:.0%})"
    return printable(f"why: {cause}: {'; '.join(diagnosis.evidence)}; next: {diagnosis.remedy}")


def lines(alerts: Iterable[Alert]) -> list[tuple[Severity, str]]:
    """One line for the alerts of one rule and severity at one step; many layers are counted, not listed."""
    found = []
    for (step, severity, rule), group in groupby(alerts, key=lambda a: (a.step, a.severity, a.rule)):
        members = list(group)
        more = f" (and {counted(len(members) - SHOWN, 'more layer')})" if len(members) > SHOWN else ""
        text = "; ".join(a.message for a in members[:SHOWN])
        found.append((severity, printable(f"step {step}  {severity.name} {rule}  {text}{more}")))
    return found
