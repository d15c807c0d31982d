from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, Report, Severity, StepStats
from gradwatch.sinks import JSONL


def report(step: int, norm: float = 1.0) -> Report:
    stats = StepStats(step, ("schicht ü",), np.array([norm]), np.array([True]), norm)
    alert = Alert(step, "nonfinite", "schicht ü", Severity.ERROR, norm, float("inf"), "schicht ü: gradient")
    return Report("healthy", Severity.INFO, alerts=(alert,), stats=stats)


def read(path: Path) -> list[Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_report_is_a_line_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "gradients.jsonl"
    sink = JSONL(path)
    for step in range(3):
        sink.write(report(step))
        assert [line["stats"]["step"] for line in read(path)] == list(range(step + 1))
    sink.close()
    assert read(path) == [report(step).to_dict() for step in range(3)]


def test_numbers_that_are_not_finite_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "gradients.jsonl"
    sink = JSONL(str(path))
    sink.write(report(0, float("nan")))
    sink.close()
    assert read(path)[0]["stats"]["grad_norm"] == ["nan"]
    assert read(path)[0]["alerts"][0]["threshold"] == "inf"


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    for step in range(2):
        sink = JSONL(tmp_path / "gradients.jsonl")
        sink.write(report(step))
        sink.close()
        sink.close()
    assert [line["stats"]["step"] for line in read(tmp_path / "gradients.jsonl")] == [0, 1]


def test_half_a_surrogate_pair_is_escaped(tmp_path: Path) -> None:
    """UTF-8 cannot hold it, and a name may."""
    sink = JSONL(tmp_path / "gradients.jsonl")
    sink.write(Report("dead: \ud800 ü", Severity.WARNING))
    sink.write(report(1))
    sink.close()
    assert [line["verdict"] for line in read(tmp_path / "gradients.jsonl")] == ["dead: \ud800 ü", "healthy"]


def test_names_stay_as_they_are(tmp_path: Path) -> None:
    sink = JSONL(tmp_path / "gradients.jsonl")
    sink.write(report(0))
    sink.close()
    assert "schicht ü" in (tmp_path / "gradients.jsonl").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^JSONL: path: cannot write to '{tmp_path}': Is a directory$"):
        JSONL(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=rf"^JSONL: path: cannot write to '{tmp_path}/file': File exists$"):
        JSONL(tmp_path / "file" / "gradients.jsonl")


@pytest.mark.parametrize("path", [3, None, ["gradients.jsonl"]])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(TypeError, match=r"^JSONL: path must be a path, got"):
        JSONL(path)  # type: ignore[arg-type]
