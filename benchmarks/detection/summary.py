"""What the labels say, for the documentation: what became of each family, and which programs were dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.detection.labels import DEAD, DEGRADED, DROPPED, FAULTY, HEALTHY, Label, LabelFile
from benchmarks.detection.programs.drawn import is_drawn
from benchmarks.detection.task import Program

COLUMNS = (f"{FAULTY}, {DEAD}", f"{FAULTY}, {DEGRADED}", HEALTHY, DROPPED)
NO_LABEL = "no label yet"


def labels_section(programs: Sequence[Program], file: LabelFile) -> str:
    """The tables of :func:`labels_table`, and how the labels were made."""
    made_by = file.made_by
    made = f"\n\n{made_by['machine']}. Made by `{made_by['command']}`." if made_by else ""
    return labels_table(programs, file.labels) + made


def labels_table(programs: Sequence[Program], labels: Mapping[str, Label]) -> str:
    """In markdown: how many programs of each family ended how, then the dropped ones, each with its reason.

    Of those drawn at random only the number is told: some were bound to be no fault, or none for sure.
    """
    named = [(program.family, _column(labels.get(program.name))) for program in programs]
    counts = Counter(named)
    columns = [*COLUMNS, *([NO_LABEL] if any(column == NO_LABEL for _, column in named) else [])]
    families = list(dict.fromkeys(family for family, _ in named))
    rows = [[family, *(counts[family, column] for column in columns)] for family in families]
    total = ["all", *(sum(counts[family, column] for family in families) for column in columns)]
    dropped = [
        [f"`{program.name}`", found.outcome, found.reason]
        for program in programs
        if (found := labels.get(program.name)) is not None and found.label == DROPPED and not is_drawn(program)
    ]
    tables = [_markdown(("family", *columns), [*rows, total], "---:")]
    if dropped:
        tables.append(_markdown((DROPPED, "outcome", "reason"), dropped, "---"))
    drawn = Counter(label.label for program in programs if is_drawn(program) and (label := labels.get(program.name)))
    if drawn:
        tables.append(
            f"Of the {drawn.total()} programs drawn at random {drawn[FAULTY]} are faulty, {drawn[HEALTHY]} healthy "
            f"and {drawn[DROPPED]} dropped."
        )
    return "\n\n".join(tables)


def _column(found: Label | None) -> str:
    """The column in which a program counts."""
    if found is None:
        return NO_LABEL
    return f"{FAULTY}, {found.outcome}" if found.label == FAULTY else found.label


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[object]], align: str) -> str:
    lines = [heads, ["---", *[align] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
