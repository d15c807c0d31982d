"""Scores against hand-counted tables, the rows that show what a score is worth, and the whole way from run to table."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from benchmarks.detection import __main__ as command
from benchmarks.detection import board, labels
from benchmarks.detection.labels import Label, LabelFile
from benchmarks.detection.recorder import record
from benchmarks.detection.recording import Recording
from benchmarks.detection.scores import Case, Flag, accuracy_only, by_family, flag_everything, score, steps_seen
from tests.benchmarks_detection.tiny import RELU, SIGMOID


def error(step: int, symptom: str = "vanishing") -> Flag:
    return Flag(step, symptom)


def warning(step: int, symptom: str = "vanishing") -> Flag:
    return Flag(step, symptom, severity="warning")


def faulty(*findings: Flag, symptom: str = "vanishing", steps: int = 100) -> Case:
    return Case("f", True, symptom, steps, steps, findings)


def healthy(*findings: Flag, steps: int = 100) -> Case:
    return Case("healthy", False, "", steps, steps, findings)


CASES = (
    faulty(error(40), error(2)),
    faulty(error(8), error(9, "dead")),
    faulty(error(20, "dead"), steps=200),
    faulty(warning(1)),
    faulty(),
    healthy(error(50), error(60), error(70)),
    healthy(warning(3)),
    healthy(),
    healthy(steps=200),
)


def test_the_whole_run_is_counted_by_hand() -> None:
    """Three of five faulty ones flagged, one of four healthy ones."""
    found = score(CASES)
    assert (found.precision.count, found.precision.total) == (3, 4)
    assert (found.recall.count, found.recall.total) == (3, 5)
    assert (found.false_positives.count, found.false_positives.total) == (1, 4)
    assert found.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6), rel=1e-12)
    assert (found.right_symptom.count, found.only_right_symptom.count, found.right_symptom.total) == (2, 1, 3)
    assert found.first_alert == 8  # of 2, 8, 20
    assert found.first_alert_share == 0.08  # of 0.02, 0.08, 0.1
    assert found.false_alarms == 1000 * 3 / 500
    assert found.recall.interval == pytest.approx((0.2307, 0.8824), abs=5e-5)


def test_early_in_the_run_only_what_was_found_by_then_counts() -> None:
    """In the first tenth, 10 steps of 100 and 20 of 200, the third case is a step late, and no healthy one flagged."""
    found = score(CASES, cut=0.1)
    assert (found.recall.count, found.false_positives.count) == (2, 0)
    assert (found.precision.value, found.f1) == (1.0, pytest.approx(4 / 7))
    assert (found.right_symptom.count, found.only_right_symptom.count) == (2, 1)
    assert found.false_alarms == 0
    # In the first twentieth the first case alone.
    assert score(CASES, cut=0.05).recall.count == 1


def test_any_message_counts_warnings_too() -> None:
    found = score(CASES, severities=("error", "warning"))
    assert (found.recall.count, found.false_positives.count) == (4, 2)
    assert found.only_right_symptom.count == 2


def test_a_run_that_broke_down_counts_the_steps_it_did() -> None:
    broke = Case("healthy", False, "", 1000, 50, [error(10)])
    assert score([broke]).false_alarms == 1000 / 50
    assert score([broke], cut=0.02).false_alarms == 1000 / 20


def test_nothing_to_score_is_no_number() -> None:
    found = score([healthy()])
    assert math.isnan(found.f1)
    assert math.isnan(found.recall.value)
    assert math.isnan(found.first_alert)
    assert found.false_positives.value == 0.0
    assert math.isnan(score([]).false_alarms)
    assert score([faulty()]).f1 == 0.0


def test_a_detector_without_any_finding_has_no_precision_and_no_f1() -> None:
    found = score([faulty(), healthy()])
    assert math.isnan(found.precision.value)
    assert found.f1 == 0.0


def test_families_are_counted_apart() -> None:
    found = by_family(CASES)
    assert {family: (share.count, share.total) for family, share in found.items()} == {"f": (3, 5), "healthy": (1, 4)}


def test_a_cut_ends_at_a_whole_step() -> None:
    assert [steps_seen(300, cut) for cut in (0.05, 0.1, 0.3, 1.0)] == [15, 30, 90, 300]
    assert [steps_seen(7, cut) for cut in (0.05, 0.1, 1.0)] == [1, 1, 7]


# --- sanity rows ----------------------------------------------------------------------------------------------------


def run(values: Sequence[float], planned: int = 300, trivial: float = 0.1) -> Recording:
    """A metric at steps 10, 20, ..."""
    steps = np.arange(1, len(values) + 1) * 10
    return SimpleNamespace(planned_steps=planned, trivial=trivial, metric_steps=steps, metric=np.array(values))


@pytest.mark.parametrize(
    ("values", "at_5", "at_10", "whole"),
    [
        ([0.3] * 30, False, False, False),
        ([0.1] * 30, True, True, True),
        ([0.1, 0.3] + [0.1] * 28, True, False, False),  # learned by a tenth, whatever comes after
        ([0.1] * 8 + [0.3] * 22, True, True, False),  # within 30%: 90 steps
        ([0.1] * 9 + [0.9] * 21, True, True, True),  # too late
        ([0.2] * 30, True, True, True),  # 0.1 above is not more than 0.1
        ([math.nan] * 30, True, True, True),
        ([], True, True, True),  # broke down before the first value
    ],
)
def test_accuracy_alone_flags_what_has_not_learned_by_then(
    values: Sequence[float], at_5: bool, at_10: bool, whole: bool
) -> None:
    found = [accuracy_only(run(values), cut) for cut in (0.05, 0.1, 1.0)]
    assert [bool(flags) for flags in found] == [at_5, at_10, whole]
    assert [flags[0].step for flags in found if flags] == [
        step for step, flagged in ((14, at_5), (29, at_10), (89, whole)) if flagged
    ]


def test_flagging_everything_has_full_recall_and_a_false_positive_rate_of_one() -> None:
    flags = flag_everything(run([0.9]), 1.0)
    found = score([faulty(*flags), faulty(*flags), healthy(*flags)])
    assert (found.recall.value, found.false_positives.value, found.f1) == (1.0, 1.0, 0.8)


# --- from runs to a table -------------------------------------------------------------------------------------------


def vanished(recording: Recording) -> list[Flag]:
    """An error where the first weight's gradient begins below 1e-4, and a warning at any that is below 1."""
    first = recording.grad_norm[:, 0]
    return [*([error(0)] if first[0] < 1e-4 else []), *(warning(int(step)) for step in np.flatnonzero(first < 1))]


@pytest.fixture(scope="module")
def found() -> board.Board:
    detectors = board.Board({"ours": vanished, "silent": lambda recording: []})
    for program, is_faulty in ((SIGMOID, True), (RELU, False)):
        detectors.add(program, is_faulty, record(program.build(0))[0])
    return detectors


def test_every_detector_has_a_row_and_one_for_any_message_where_it_warns(found: board.Board) -> None:
    rows = {row.name: row for row in found.rows()}
    assert list(rows) == ["ours", "ours, any message", "silent", "flag everything", "accuracy only"]
    assert rows["ours"].scores[1.0].f1 == rows["ours"].scores[0.05].f1 == 1.0
    assert rows["ours"].scores[1.0].first_alert == 0
    assert rows["ours, any message"].scores[1.0].false_positives.count == 1
    assert rows["ours, any message"].families["healthy"].count == 1
    assert rows["silent"].scores[1.0].recall.count == 0
    assert rows["accuracy only"].scores[1.0].f1 == 1.0
    assert rows["ours"].families["vanishing-sigmoid"].count == 1


def test_the_tables_show_the_same_figures(found: board.Board) -> None:
    rows = list(found.rows())
    text = board.markdown(rows)
    certain, never = "1.00 (0.21-1.00)", "0.00 (0.00-0.79)"
    assert f"| ours | {certain} | {certain} | 1.00 | {never} | 1 of 1 | 1 of 1 | step 0 (0.0%) | 0.00 |" in text
    assert f"| silent | - | {never} | 0.00 | {never} | - | - | - | 0.00 |" in text
    assert f"| flag everything | 0.50 (0.09-0.91) | {certain} | 0.67 | {certain} |" in text
    assert "| vanishing-sigmoid | 1 of 1 | 1 of 1 | 0 of 1 | 1 of 1 | 1 of 1 |" in text
    assert text.index("| first 10% of the run |") < text.index("| first 5% of the run |")
    screen = Console(file=io.StringIO(), width=200)
    for table in board.tables(rows, "dev half"):
        screen.print(table)
    assert "step 0 (0.0%)" in screen.file.getvalue()


def test_the_figures_are_plain_json(found: board.Board) -> None:
    ours, _, silent, *_ = json.loads(json.dumps(board.as_json(found.rows()), allow_nan=False))
    assert (ours["name"], ours["cuts"]["1"]["f1"], ours["cuts"]["0.05"]["recall"]) == (
        "ours",
        1.0,
        {"count": 1, "total": 1},
    )
    assert silent["cuts"]["1"]["first_alert"] is None
    assert silent["families"]["healthy"] == {"count": 0, "total": 1}


# --- the command ----------------------------------------------------------------------------------------------------


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def labelled(name: str) -> Label:
    return Label(name, "", "", 0.0, (), (), 0.0, 1.0, 1.0, 0.0, False)


def test_recordings_are_made_once_and_again_when_the_settings_change(tmp_path: Path) -> None:
    command.record_all([RELU], tmp_path, quiet())
    (made,) = tmp_path.iterdir()
    assert made == command.recording_of(RELU, tmp_path)
    assert len(Recording.load(made)) == 60
    made.write_bytes(b"kept")
    command.record_all([RELU], tmp_path, quiet())
    assert made.read_bytes() == b"kept"
    assert command.recording_of(SIGMOID, tmp_path) != made


def test_labelling_goes_on_where_it_was_and_writes_after_each_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "labels.json", []

    def label(program: object, gains: object) -> Label:
        asked.append(program)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return Label(**{**vars(labelled("healthy")), "fingerprint": labels.fingerprint(program)})

    monkeypatch.setattr(labels, "label", label)
    with pytest.raises(KeyboardInterrupt):
        command.label([RELU, SIGMOID], path, quiet())
    assert list(LabelFile.read(path).labels) == [RELU.name]
    command.label([RELU, SIGMOID], path, quiet())
    assert asked == [RELU, SIGMOID, SIGMOID]
    file = LabelFile.read(path)
    assert set(file.labels) == {RELU.name, SIGMOID.name}
    assert file.made_by["command"] == "python -m benchmarks.detection label"
    assert {"machine", "python", "torch", "numpy"} <= set(file.made_by)


def test_dropped_programs_and_those_without_a_label_are_left_out() -> None:
    file = LabelFile(labels={RELU.name: labelled("healthy"), SIGMOID.name: labelled("dropped")})
    assert list(command.kept([RELU, SIGMOID], file)) == [RELU]
    assert list(command.kept([SIGMOID], LabelFile())) == []


def test_the_docs_get_the_tables_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "detection.md"
    path.write_text("before\n<!-- detection -->\nold\n<!-- /detection -->\nafter\n")
    command.write_docs("new", path)
    assert path.read_text() == "before\n<!-- detection -->\nnew\n<!-- /detection -->\nafter\n"
