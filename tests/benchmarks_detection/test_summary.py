"""What the labels say: the tables against labels made up for them, and the page against the programs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.detection import __main__ as command
from benchmarks.detection import detectors, split
from benchmarks.detection.labels import DEAD, DEGRADED, DROPPED, FAULTY, HEALTHY, OK, UNCLEAR, Label, LabelFile
from benchmarks.detection.programs import ALL
from benchmarks.detection.programs.drawn import is_drawn
from benchmarks.detection.summary import labels_section, labels_table
from benchmarks.detection.task import SYMPTOMS, Program
from tests.benchmarks_detection.tiny import perceptron


def program(name: str) -> Program:
    return Program(name, name.split("/")[0], perceptron, {})


def labelled(label: str, outcome: str, reason: str = "") -> Label:
    return Label(label, reason, outcome, 0.0, (), (), 0.0, 1.0, 1.0, 0.0, False)


PROGRAMS = [program(name) for name in ("relu/1", "relu/2", "relu/3", "tanh/1", "tanh/2", "healthy/1", "healthy/2")]
LABELS = {
    "relu/1": labelled(FAULTY, DEAD),
    "relu/2": labelled(FAULTY, DEGRADED),
    "relu/3": labelled(FAULTY, DEAD),
    "tanh/1": labelled(DROPPED, UNCLEAR, "it does not fail: q = 0.60, not killed"),
    "tanh/2": labelled(DROPPED, DEAD, "no remedy"),
    "healthy/1": labelled(HEALTHY, OK),
    "healthy/2": labelled(DROPPED, DEAD, "it learns nothing"),
    "gone/1": labelled(FAULTY, DEAD),
}
FAMILIES = """\
| family | faulty, dead | faulty, degraded | healthy | dropped |
| --- | ---: | ---: | ---: | ---: |
| relu | 2 | 1 | 0 | 0 |
| tanh | 0 | 0 | 0 | 2 |
| healthy | 0 | 0 | 1 | 1 |
| all | 2 | 1 | 1 | 3 |"""
DROPPED_ONES = """\
| dropped | outcome | reason |
| --- | --- | --- |
| `tanh/1` | unclear | it does not fail: q = 0.60, not killed |
| `tanh/2` | dead | no remedy |
| `healthy/2` | dead | it learns nothing |"""


def test_every_program_is_counted_once_and_the_dropped_ones_are_listed() -> None:
    assert labels_table(PROGRAMS, LABELS) == f"{FAMILIES}\n\n{DROPPED_ONES}"


def test_of_the_programs_drawn_at_random_the_number_is_told() -> None:
    drawn = [program("relu/drawn-1"), program("relu/drawn-2"), program("healthy-drawn/1")]
    labels = dict(zip((p.name for p in drawn), (labelled(FAULTY, DEAD), labelled(DROPPED, OK, "it does not fail"))))
    told = labels_table([*PROGRAMS, *drawn], {**LABELS, **labels}).split("\n\n")
    assert told[1:] == [DROPPED_ONES, "Of the 2 programs drawn at random 1 are faulty, 0 healthy and 1 dropped."]


def test_without_dropped_programs_there_is_no_list_of_them() -> None:
    _, _, *lines = labels_table(PROGRAMS[:3], LABELS).splitlines()
    assert lines == ["| relu | 2 | 1 | 0 | 0 |", "| all | 2 | 1 | 0 | 0 |"]


def test_programs_without_a_label_have_a_column_of_their_own() -> None:
    lines = labels_table([*PROGRAMS, program("new/1")], LABELS).splitlines()
    assert lines[0] == "| family | faulty, dead | faulty, degraded | healthy | dropped | no label yet |"
    assert lines[5:7] == ["| new | 0 | 0 | 0 | 0 | 1 |", "| all | 2 | 1 | 1 | 3 | 1 |"]


def test_the_section_says_how_the_labels_were_made() -> None:
    file = LabelFile(made_by={"command": "the command", "machine": "a machine"}, labels=LABELS)
    assert labels_section(PROGRAMS, file).endswith("it learns nothing |\n\na machine. Made by `the command`.")
    assert labels_section(PROGRAMS, LabelFile(labels=LABELS)) == labels_table(PROGRAMS, LABELS)


def test_scoring_for_the_docs_writes_scores_and_labels_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "detection.md"
    docs.write_text("a\n<!-- labels -->\nold\n<!-- /labels -->\nb\n<!-- detection -->\nold\n<!-- /detection -->\nc\n")
    monkeypatch.setattr(command, "DOCS", docs)
    monkeypatch.setattr(split, "update", lambda programs: split.read())
    command.main(["score", "--docs", "--labels", str(tmp_path / "none.json"), "--recordings", str(tmp_path)])
    before, section, between, scores, after = re.split(r"<!-- /?(?:labels|detection) -->\n", docs.read_text())
    assert (before, between, after) == ("a\n", "b\n", "c\n")
    assert section == labels_table(ALL, {}) + "\n"
    assert scores.startswith("### The dev half\n\n| whole run |")
    assert "### The test half\n\n" in scores


# --- the page -------------------------------------------------------------------------------------------------------

PAGE = command.DOCS.read_text(encoding="utf-8")


def rows(head: str) -> dict[str, list[str]]:
    """First cell -> the other cells, of the first table with this first head."""
    table = PAGE[PAGE.index(f"\n| {head} |") + 1 :].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return {first: rest for first, *rest in cells}


def test_the_page_has_the_marks_of_both_sections_once() -> None:
    for marks in (command.SCORES, command.LABELS):
        assert PAGE.count(f"<!-- {marks} -->") == PAGE.count(f"<!-- /{marks} -->") == 1


def test_the_page_counts_the_programs_of_each_family_and_group_as_they_are() -> None:
    families = {(program.family, drawn): 0 for program in ALL for drawn in (False, True)}
    families |= Counter((program.family, is_drawn(program)) for program in ALL)
    assert {
        (family, drawn): int(cells[drawn]) for family, cells in rows("family").items() for drawn in (False, True)
    } == families
    groups = Counter(program.name.split("/")[0] for program in ALL if program.is_healthy)
    assert {f"healthy-{group}": int(cells[0]) for group, cells in rows("group").items()} == groups


def test_the_page_names_the_symptoms_of_each_family() -> None:
    for family, (_, _, _, named, _) in rows("family").items():
        symptoms = Counter(program.symptom for program in ALL if program.family == family)
        several = ", ".join(f"{symptom} ({count})" for symptom, count in symptoms.most_common())
        assert named == (several if len(symptoms) > 1 else next(iter(symptoms)) or "none")
    assert tuple(rows("symptom")) == SYMPTOMS


def test_the_page_says_how_many_programs_and_how_they_are_split() -> None:
    faulty = [program for program in ALL if not program.is_healthy]
    designed = Counter(program.severity for program in faulty)
    drawn = sum(map(is_drawn, ALL))
    halves = split.read()
    in_half = [sum(halves[program.name] == half for program in ALL) for half in split.HALVES]
    faulty_in_half = [sum(halves[program.name] == half for program in faulty) for half in split.HALVES]
    words = " ".join(PAGE.split())
    for sentence in (
        f"{len(ALL)} small training runs, {len(faulty)} of them with one seeded fault",
        f"{len(ALL) - drawn} were written one by one, each to show something, and {drawn} drawn at random",
        f"dead or only degraded: {designed['dead']} and {designed['degraded']}.",
        f"{in_half[0]} and {in_half[1]} programs, of these {faulty_in_half[0]} and {faulty_in_half[1]} faulty",
    ):
        assert sentence in words


def test_the_page_names_every_detector() -> None:
    assert list(rows("detector")) == list(detectors.ALL)
