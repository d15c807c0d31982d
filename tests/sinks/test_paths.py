from __future__ import annotations

import os
from pathlib import Path

import pytest

from gradwatch.sinks.paths import writable_directory


@pytest.mark.parametrize("kind", [str, Path])
def test_a_directory_is_made_with_its_parents(tmp_path: Path, kind: type) -> None:
    wanted = tmp_path / "runs" / "ü 1"
    assert writable_directory("logdir", kind(wanted)) == wanted
    assert wanted.is_dir()
    assert writable_directory("logdir", kind(wanted)) == wanted


def test_a_file_in_the_way_is_named_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "runs"):
        with pytest.raises(ValueError, match=rf"^logdir: cannot write to '{path}': (File exists|Not a directory)$"):
            writable_directory("logdir", path)


def test_a_directory_without_permission_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    with pytest.raises(ValueError, match=rf"^logdir: cannot write to '{tmp_path}': permission denied$"):
        writable_directory("logdir", tmp_path)


@pytest.mark.parametrize("path", [3, None, b"runs", ["runs"]])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(TypeError, match=r"^logdir must be a path, got"):
        writable_directory("logdir", path)  # type: ignore[arg-type]
