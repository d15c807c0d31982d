"""What the user sees of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

import gradwatch as gw
from gradwatch.demo.drawing import DECADES, bar, sparkline
from gradwatch.demo.training import Run
from gradwatch.tags import printable

STYLES = {gw.Severity.INFO: "green", gw.Severity.WARNING: "yellow", gw.Severity.ERROR: "bold red"}


def show(run: Run, console: Console) -> None:
    """Print the report of ``run``, its gradient norms, and how the loss went."""
    console.print()
    console.print(_report(run.report))
    console.print()
    console.print(norms("layer", run.history.layers, run.history.median()))
    first, last, highest = run.losses[0], run.losses[-1], max(run.losses)
    console.print(f"[bold]loss[/]      {sparkline(run.losses)}  {first:.3g} to {last:.3g}, at most {highest:.3g}")
    console.print(f"[bold]accuracy[/]  training {run.train_accuracy:.1%}, test {run.test_accuracy:.1%}\n")


def norms(what: str, names: Iterable[object], values: Iterable[float]) -> Table:
    """A table of gradient norms, with bars on an axis that is the same for every run."""
    low, high = DECADES
    table = Table(what, "gradient norm", f"1e{low:+03d} to 1e{high:+03d}, log axis", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for name, value in zip(names, values):
        table.add_row(Text(printable(str(name))), f"{value:.2g}", bar(value))
    return table


def summary(runs: Sequence[Run]) -> Table:
    """The runs of a story side by side."""
    table = Table("run", "loss", "accuracy", "verdict", box=None, header_style="bold")
    for run in runs:
        verdict = Text(printable(run.report.verdict), style=STYLES[run.report.severity])
        table.add_row(Text(run.name), f"{run.train_loss:.3g}", f"{run.train_accuracy:.1%}", verdict)
    return table


def _report(report: gw.Report) -> Table:
    """The report with its titles as a column of their own, so that long lines stay under their section."""
    table = Table.grid(padding=(0, 2))
    for title, lines in report.sections():
        style = STYLES[report.severity] if title == "Verdict" else ""
        for i, line in enumerate(lines):
            table.add_row(Text("" if i else title, style="bold"), Text(line, style=style))
    return table
