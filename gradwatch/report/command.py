"""What `gradwatch report` does: read, show, and say by the exit code what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gradwatch.records import Severity, to_plain
from gradwatch.report.screen import show
from gradwatch.report.summary import Comparison, RunSummary, compare, summarize
from gradwatch.report.text import Line, comparison, summary
from gradwatch.tensorboard_plugin import html
from gradwatch.tensorboard_plugin.events import runs
from gradwatch.tensorboard_plugin.tables import NoNormsError, Tables, read

FOUND = 3
"""Exit code where there is what the user asked to fail on."""


class ReportError(Exception):
    """What the user can mend, in a sentence."""


def report(
    logdir: Path, other: Path | None = None, as_json: bool = False, page: Path | None = None, fail_on: str | None = None
) -> int:
    """Report on every run in ``logdir``.

    Args:
        logdir: a directory that holds event files, at any depth.
        other: another, to compare with it.
        as_json: print JSON.
        page: where an HTML page goes.
        fail_on: "warning" or "error".

    Returns:
        The exit code: FOUND where a verdict or an alert in ``logdir``, over or not, is as bad as ``fail_on``, else 0.

    Raises:
        ReportError: when there is nothing to report on, or the page cannot be written.
    """
    tables = _read(logdir)
    others = _read(other) if other is not None else {}
    found = {name: summarize(name, run) for name, run in tables.items()}
    pairs = _pairs({name: summarize(name, run) for name, run in others.items()}, found) if other is not None else []
    if as_json:
        print(json.dumps(to_plain({"runs": [*found.values()], "comparisons": [_plain(pair) for pair in pairs]})))
    else:
        for i, run in enumerate(found.values()):
            show([Line("")] * (i > 0) + summary(run))
        for pair in pairs:
            show([Line(""), *comparison(pair)])
    if page is not None:
        _write(page, tables, others, str(other))
    worst = max(run.worst for run in found.values())
    return FOUND if fail_on is not None and worst >= Severity[fail_on.upper()] else 0


def _read(logdir: Path) -> dict[str, Tables]:
    """The runs in ``logdir``, by the names that TensorBoard gives them."""
    if not logdir.is_dir():
        raise ReportError(f"{str(logdir)!r} is no directory")
    found, missing = {}, 0
    for directory in runs(logdir):
        try:
            found[directory.relative_to(logdir).as_posix()] = read(directory)
        except OSError as error:
            raise ReportError(f"cannot read {str(directory)!r}: {error.strerror or error}") from error
        except NoNormsError:
            missing += 1
    if not found:
        others = f"; {missing} run{'s' * (missing > 1)} in it without" if missing else " and no event files"
        raise ReportError(f"{str(logdir)!r} holds no gradient norms of gradwatch{others}")
    return found


def _pairs(before: Mapping[str, RunSummary], after: Mapping[str, RunSummary]) -> list[Comparison]:
    """The runs of one name in both; one of each side whatever their names."""
    if len(before) == len(after) == 1:
        return [compare(*before.values(), *after.values())]
    found = [compare(before[name], run) for name, run in after.items() if name in before]
    if not found:
        raise ReportError(f"--compare: no run has the same name in both: {_names(before)}; and {_names(after)}")
    return found


def _names(runs: Mapping[str, RunSummary]) -> str:
    return ", ".join([*runs][:5]) + (", ..." if len(runs) > 5 else "")


def _plain(pair: Comparison) -> dict[str, object]:
    changes = [{"layer": c.layer, "before": c.before, "after": c.after, "factor": c.factor} for c in pair.changes]
    return {
        "before": {"name": pair.before.name, "verdict": pair.before.report.verdict, "worst": pair.before.worst},
        "after": {"name": pair.after.name, "verdict": pair.after.report.verdict, "worst": pair.after.worst},
        "changes": changes,
        "only_before": pair.only_before,
        "only_after": pair.only_after,
    }


def _write(page: Path, tables: Mapping[str, Tables], others: Mapping[str, Tables], other: str) -> None:
    named = {f"{other}/{name}" if name in tables else name: run for name, run in others.items()}
    try:
        page.write_text(html.page({**tables, **named}), encoding="utf-8")
    except html.PlotlyMissingError as error:
        raise ReportError(f"--html: {error}") from error
    except OSError as error:
        raise ReportError(f"--html: cannot write {str(page)!r}: {error.strerror or error}") from error
