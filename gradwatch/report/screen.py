"""Lines on a terminal: in colour where rich is installed, else as they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from gradwatch.records import Severity
from gradwatch.report.text import Line
from gradwatch.sinks.console import STYLES


def show(lines: Iterable[Line]) -> None:
    """Print ``lines``; what is no more than information has no colour."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        for line in lines:
            print(line.text)
        return
    console = Console(file=sys.stdout, soft_wrap=True)
    for text, severity in lines:
        console.print(Text(text, style=STYLES[severity] if severity > Severity.INFO else ""))
