"""JSONL: one JSON object per step and line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from gradwatch.records import Report
from gradwatch.sinks.paths import writable_directory


class JSONL:
    """Appends each report to a file as one line of JSON; every line is on disk at once, so a killed run loses nothing.

    Non-finite numbers are written as the strings "nan", "inf" and "-inf", which every JSON reader takes.

    Args:
        path: the file; its directory is made, an existing file is continued.

    Raises:
        TypeError: when ``path`` is no path.
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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        directory = writable_directory(
            "JSONL: path", Path(path).parent if isinstance(path, (str, os.PathLike)) else path
        )
        self._path = directory / Path(path).name
        try:
            self._file = self._open()
        except OSError as error:
            raise ValueError(f"JSONL: path: cannot write to {str(path)!r}: {error.strerror or error}") from error

    def write(self, report: Report) -> None:
        if self._file.closed:  # a monitor closes its sinks; the next one, as of a second fit, goes on where it stopped
            self._file = self._open()
        self._file.write(json.dumps(report.to_dict(), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()

    def __reduce__(self) -> tuple[type[JSONL], tuple[Path]]:
        """Copies and other processes get the path: an open file does not travel."""
        return type(self), (self._path,)

    def _open(self) -> IO[str]:
        return self._path.open("a", encoding="utf-8", buffering=1)
