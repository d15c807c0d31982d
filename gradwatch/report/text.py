"""A summary in words, for a terminal: pure functions from records to lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gradwatch.records import Severity
from gradwatch.report.summary import Change, Comparison, LayerSummary, RunSummary
from gradwatch.sinks.console import lines as alert_lines
from gradwatch.tags import printable

LAYERS = 20
"""Rows of a table of layers at most: those with alerts, NaN or inf, and others evenly spread."""
ALERTS = 10
"""Lines of alerts at most, the first."""
CHANGES = 12
"""Rows of a comparison at most, the largest changes."""
NAME = 40
"""Characters of a name that are shown, its end, which tells layers apart."""

LEVELS = "▁▂▃▄▅▆▇█"


class Line(NamedTuple):
    """One line, and how much it matters."""

    text: str
    severity: Severity = Severity.INFO


def summary(run: RunSummary) -> list[Line]:
    """One run: verdict, why, evidence, next; its alerts; its layers."""
    verdict, *rest = str(run.report).splitlines()
    recorded = f"{run.steps:,} steps ({run.first:,} to {run.last:,}), {len(run.layers):,} layers"
    found = [Line(f"Run       {printable(run.name)}"), Line(verdict, run.report.severity)]
    found += [*map(Line, rest), Line(f"Recorded  {recorded}")]
    found += [Line(f"{'Note' if i == 0 else '':<10}{printable(note)}") for i, note in enumerate(run.notes)]
    return [*found, *_alerts(run), Line(""), *_layers(run.layers)]


def comparison(found: Comparison) -> list[Line]:
    """Two runs: both verdicts, and the layers whose norms differ most."""
    lines = [Line(f"Compared  {printable(found.before.name)} -> {printable(found.after.name)}")]
    for title, run in (("Before", found.before), ("After", found.after)):
        lines.append(Line(f"{title:<10}{printable(run.report.verdict)}", run.report.severity))
    known = [change for change in found.changes if change.factor > 0]
    largest = sorted(known, key=lambda change: -abs(math.log(change.factor)))[:CHANGES]
    rows = [_change(change) for change in known if change in largest]
    if rows:
        lines += [Line(""), *map(Line, table(("layer", "median before", "after", "factor"), rows))]
    hidden = len(found.changes) - len(rows)
    for count, more, where in (
        (hidden, "more ", "in both: the norms differ less or are not known"),
        (len(found.only_before), "", f"only in {found.before.name}"),
        (len(found.only_after), "", f"only in {found.after.name}"),
    ):
        lines += [Line(printable(f"{count:,} {more}layer{'s' * (count > 1)} {where}"))] if count else []
    return lines


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 3) -> list[str]:
    """Columns as wide as they must be: so many ``numbers`` after the first to the right, the others to the left.

    >>> print(*table(("layer", "norm", ""), [("fc", "0.5", "dead"), ("fc10", "12", "")], numbers=1), sep="|")
    layer  norm|fc      0.5  dead|fc10     12
    """
    cells = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        "  ".join(
            cell.rjust(width) if 0 < i <= numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in cells
    ]


def trend(values: Sequence[float]) -> str:
    """Blocks on a log axis from the least value, a decade long or as many as it takes; a blank where there is none.

    >>> trend([1.0, 10.0, 0.0, 100.0])
    '▁▅ █'
    """
    logs = [math.log10(value) if value > 0 else None for value in values]
    known = [log for log in logs if log is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    scale = (len(LEVELS) - 1) / max(high - low, 1.0)
    return "".join(" " if log is None else LEVELS[int(scale * (log - low) + 0.5)] for log in logs)


def _alerts(run: RunSummary) -> list[Line]:
    found = [Line(text, severity) for severity, text in alert_lines(run.report.alerts)]
    shown = [Line(f"{'Alerts' if i == 0 else '':<10}{text}", severity) for i, (text, severity) in enumerate(found)]
    more = [Line(f"{'':<10}... and {len(found) - ALERTS:,} more")] if len(found) > ALERTS else []
    return shown[:ALERTS] + more


def _layers(layers: Sequence[LayerSummary]) -> list[Line]:
    rows = [
        (
            _name(layer.name),
            *map(_number, (layer.median, layer.least, layer.largest)),
            trend(layer.trend),
            _remarks(layer),
        )
        for layer in chosen(layers)
    ]
    hidden = len(layers) - len(rows)
    lines = [*map(Line, table(("layer", "median", "least", "largest", "over time", ""), rows))]
    return lines + ([Line(f"... and {hidden:,} more layers")] if hidden else [])


def chosen(layers: Sequence[LayerSummary], most: int = LAYERS) -> list[LayerSummary]:
    """At most so many in their order: evenly spread ones of those with alerts, NaN or inf, then of the others."""
    kept: set[int] = set()
    sick = [i for i, layer in enumerate(layers) if layer.alerts or {"nan", "inf"} & layer.states.keys()]
    for places in (sick, [*range(len(layers))]):
        left = [i for i in places if i not in kept]
        take = min(most - len(kept), len(left))
        kept.update(left[i * (len(left) - 1) // max(take - 1, 1)] for i in range(take))
    return [layer for i, layer in enumerate(layers) if i in kept]


def _remarks(layer: LayerSummary) -> str:
    alerts = [f"{count} x {rule}" if count > 1 else rule for rule, count in layer.alerts.items()]
    states = [f"{state} at {count:,} step{'s' * (count > 1)}" for state, count in layer.states.items()]
    return printable("; ".join([*alerts, *states]))


def _change(change: Change) -> tuple[str, ...]:
    return _name(change.layer), _number(change.before), _number(change.after), f"{change.factor:.3g}x"


def _name(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= NAME else f"...{shown[3 - NAME :]}"


def _number(value: float) -> str:
    return f"{value:.2e}" if math.isfinite(value) else "-"
