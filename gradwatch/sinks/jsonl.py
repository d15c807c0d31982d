"""JSONL: one JSON object per step and line."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path

from gradwatch.records import Report
from gradwatch.sinks.appended_file import AppendedFile
from gradwatch.sinks.paths import writable_directory

_START = b'{"verdict": "'
"""How every line begins: the first field of a Report."""


class JSONL:
    """Appends each report to a file as one line of JSON, which a run that is killed keeps.

    Non-finite numbers are written as the strings "nan", "inf" and "-inf", which every JSON reader takes. Every line is
    whole: what a full disk or a kill cut off is taken out, at once or when the file is continued. A process forked from
    the one that writes does not write.

    Args:
        path: the file; its directory is made, an existing file is continued.

    Raises:
        TypeError: when ``path`` is not a path.
        ValueError: when the file cannot be written, with its path and the reason.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     sink = JSONL(f"{directory}/gradients.jsonl")
        ...     sink.write(Report("healthy", severity=0))
        ...     sink.close()
        ...     print(Path(directory, "gradients.jsonl").read_text()[:22])
        {"verdict": "healthy",
    """

    may_wait = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        directory = writable_directory(
            "JSONL: path", Path(path).parent if isinstance(path, (str, os.PathLike)) else path
        )
        self._path = directory / Path(path).name
        self._file: AppendedFile | None = None
        try:
            self._open().close()  # to fail now rather than at the first step, and leave to later who writes
        except OSError as error:
            raise ValueError(f"JSONL: path: cannot write to {str(path)!r}: {error.strerror or error}") from error

    def write(self, report: Report) -> None:
        if self._file is None or self._file.closed:
            self._file = self._open()
        self._file.append(_line(report))

    def close(self) -> None:
        """Close the file; a later report, as of a second fit, goes on where it stopped."""
        if self._file is not None:
            self._file.close()

    def __reduce__(self) -> tuple[type[JSONL], tuple[Path]]:
        """Copies and other processes get the path: an open file does not travel."""
        return type(self), (self._path,)

    def _open(self) -> AppendedFile:
        file = AppendedFile(self._path)
        _end_last_line(self._path, file)
        return file


def _line(report: Report) -> bytes:
    plain = report.to_dict()
    try:
        text = json.dumps(plain, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot hold but an escape can
        text = json.dumps(plain).encode()
    return text + b"\n"


def _end_last_line(path: Path, file: AppendedFile) -> None:
    """Have the next line start as one: cut off the part of a line that a killed run has left, end any other."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("r+b") as whole:
        with mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_READ) as content:
            cut = content.rfind(b"\n") + 1
            rest = content[cut : cut + len(_START)]
        if rest and _START.startswith(rest):
            whole.truncate(cut)
        elif rest:
            file.append(b"\n")
