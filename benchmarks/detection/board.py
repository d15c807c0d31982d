"""The score board: every detector on every program's recording, for the terminal, as JSON and in markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from benchmarks.detection.recording import Recording
from benchmarks.detection.scores import CUTS, ERROR, SANITY, WHOLE_RUN, Case, Finding, Score, Share, by_family, score
from benchmarks.detection.task import Program

Detect = Callable[[Recording], Sequence[Finding]]

ANY = (ERROR, "warning")

WHOLE_HEADS = (
    "whole run",
    "precision",
    "recall",
    "F1",
    "false positive rate",
    "right symptom",
    "and only it",
    "first alert",
    "false alarms per 1,000 steps",
)
CUT_HEADS = ("precision", "recall", "F1", "false positive rate")


@dataclass(frozen=True)
class Row:
    """What one detector scored at each cut, and the share of each family that it flagged in the whole run."""

    name: str
    scores: Mapping[float, Score]
    families: Mapping[str, Share]


class Board:
    """Collects what the detectors find, program by program.

    A detector that also gives warnings has a second row, in which any message counts.

    Args:
        detectors: by name.
    """

    def __init__(self, detectors: Mapping[str, Detect]) -> None:
        self._detectors = detectors
        self._cases: dict[str, list[Case]] = {name: [] for name in detectors}
        self._sanity: dict[str, dict[float, list[Case]]] = {name: {cut: [] for cut in CUTS} for name in SANITY}

    def add(self, program: Program, faulty: bool, recording: Recording) -> None:
        """Have every detector judge a program's recording."""
        for name, detect in self._detectors.items():
            self._cases[name].append(_case(program, faulty, recording, detect(recording)))
        for name, ask in SANITY.items():
            for cut in CUTS:
                self._sanity[name][cut].append(_case(program, faulty, recording, ask(recording, cut)))

    def rows(self) -> Iterator[Row]:
        """The detectors in their order, then the rows that show what a score is worth."""
        for name, cases in self._cases.items():
            yield Row(name, {cut: score(cases, cut) for cut in CUTS}, by_family(cases))
            if any(f.severity != ERROR for case in cases for f in case.findings):
                yield Row(f"{name}, any message", {cut: score(cases, cut, ANY) for cut in CUTS}, by_family(cases, ANY))
        for name, by_cut in self._sanity.items():
            scores = {cut: score(cases, cut) for cut, cases in by_cut.items()}
            yield Row(name, scores, by_family(by_cut[WHOLE_RUN]))


def tables(rows: Sequence[Row], title: str) -> Iterator[Table]:
    """All figures, for the terminal."""
    for heads, body in _parts(rows):
        table = Table(title=title)
        for i, head in enumerate(heads):
            table.add_column(head, justify="right" if i else "left")
        for cells in body:
            table.add_row(*cells)
        yield table


def markdown(rows: Sequence[Row]) -> str:
    """The same for the documentation."""
    return "\n\n".join(_markdown(heads, body) for heads, body in _parts(rows))


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The same as plain types."""
    return [
        {
            "name": row.name,
            "cuts": {
                f"{cut:g}": {**_plain(asdict(found)), "f1": _plain(found.f1)} for cut, found in row.scores.items()
            },
            "families": _plain({family: asdict(share) for family, share in row.families.items()}),
        }
        for row in rows
    ]


def _case(program: Program, faulty: bool, recording: Recording, findings: Sequence[Finding]) -> Case:
    return Case(program.family, faulty, program.symptom, recording.planned_steps, len(recording), findings)


def _parts(rows: Sequence[Row]) -> Iterator[tuple[Sequence[str], list[list[str]]]]:
    yield WHOLE_HEADS, [[row.name, *_whole(row.scores[WHOLE_RUN])] for row in rows]
    for cut in (cut for cut in CUTS if cut != WHOLE_RUN):
        yield (f"first {cut:.0%} of the run", *CUT_HEADS), [[row.name, *_first(row.scores[cut])] for row in rows]
    families = dict.fromkeys(family for row in rows for family in row.families)
    body = [[f, *(_count(row.families[f]) for row in rows)] for f in families]
    yield ("flagged, by family", *(row.name for row in rows)), body


def _first(found: Score) -> list[str]:
    return [_share(found.precision), _share(found.recall), _number(found.f1), _share(found.false_positives)]


def _whole(found: Score) -> list[str]:
    alert = "-" if math.isnan(found.first_alert) else f"step {found.first_alert:g} ({found.first_alert_share:.1%})"
    symptoms = [_count(found.right_symptom), _count(found.only_right_symptom)]
    return [*_first(found), *symptoms, alert, _number(found.false_alarms)]


def _share(share: Share) -> str:
    low, high = share.interval
    return f"{_number(share.value)} ({low:.2f}-{high:.2f})" if share.total else "-"


def _count(share: Share) -> str:
    return f"{share.count} of {share.total}" if share.total else "-"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: Any) -> Any:
    """NaN has no place in JSON: None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
