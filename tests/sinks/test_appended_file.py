from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gradwatch.sinks.appended_file import AppendedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records"


def test_each_record_is_in_the_file_at_once(path: Path) -> None:
    file = AppendedFile(path)
    for i in range(3):
        file.append(b"%d;" % i)
        assert path.read_bytes() == b"0;1;2;"[: 2 * i + 2]
    file.close()
    file.close()
    assert file.closed


def test_a_file_that_is_there_is_continued(path: Path) -> None:
    for record in (b"a", b"b"):
        file = AppendedFile(path)
        file.append(record)
        file.close()
    assert path.read_bytes() == b"ab"


def takes(*counts: int) -> Callable[[int, bytes], int]:
    """A kernel that takes as many bytes as it is told, call by call, and then finds the disk full."""
    left, write = list(counts), os.write

    def part(descriptor: int, data: bytes) -> int:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: left.pop(0)])

    return part


def test_a_record_that_is_taken_in_parts_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendedFile(path)
    monkeypatch.setattr(os, "write", takes(2, 1, 100))
    file.append(b"record")
    assert path.read_bytes() == b"record"


@pytest.mark.parametrize("counts", [(), (3,), (3, 2)], ids=str)
def test_a_record_that_fits_in_part_is_taken_out(
    counts: tuple[int, ...], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AppendedFile(path)
    file.append(b"first;")
    monkeypatch.setattr(os, "write", takes(*counts))
    with pytest.raises(OSError, match="No space left on device"):
        file.append(b"second;")
    monkeypatch.undo()
    assert path.read_bytes() == b"first;"
    file.append(b"third;")
    assert path.read_bytes() == b"first;third;"


def test_what_another_has_appended_since_is_not_taken_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = AppendedFile(path), AppendedFile(path)
    write, take = os.write, takes(3)

    def write_after_it(descriptor: int, data: bytes) -> int:
        count = take(descriptor, data)
        write(other._descriptor, b"other;")
        return count

    monkeypatch.setattr(os, "write", write_after_it)
    with pytest.raises(OSError, match="No space left on device"):
        file.append(b"record;")
    assert path.read_bytes() == b"recother;"


def test_a_file_that_was_removed_takes_nothing(path: Path) -> None:
    file = AppendedFile(path)
    file.append(b"first")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"the file was removed: '{path}'"):
        file.append(b"second")


def test_a_file_that_was_moved_goes_on_where_it_is(path: Path) -> None:
    file = AppendedFile(path)
    file.append(b"first;")
    moved = path.rename(path.with_suffix(".old"))
    file.append(b"second;")
    assert moved.read_bytes() == b"first;second;"


def test_another_process_neither_writes_nor_closes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendedFile(path)
    file.append(b"first;")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)
        with pytest.raises(RuntimeError, match=f"'{path}' is written by the process from which this one was forked"):
            file.append(b"second;")
        file.close()
        assert not file.closed
    file.append(b"third;")
    assert path.read_bytes() == b"first;third;"


def test_a_file_that_nobody_holds_is_closed(path: Path) -> None:
    file = AppendedFile(path)
    descriptor = file._descriptor
    os.fstat(descriptor)
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_that_cannot_be_made_says_why(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        AppendedFile(path / "records")
