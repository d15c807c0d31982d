"""A file to which one process appends records, each whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


class AppendedFile:
    """Appends records with one unbuffered write each, so that a run that is killed keeps all of them.

    A record that fits only in part, as on a full disk, is taken out again. A process forked from the one that opened
    the file neither writes to it nor closes it.

    Args:
        path: the file, made if it is not there.

    Raises:
        OSError: when it cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     file = AppendedFile(Path(directory, "records"))
        ...     file.append(b"one ")
        ...     file.append(b"two")
        ...     file.close()
        ...     print(Path(directory, "records").read_text(), file.closed)
        one two True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = True  # for __del__, should the next line fail
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self.closed = False
        self._owner = os.getpid()
        self._has_links = os.fstat(self._descriptor).st_nlink > 0  # some file systems count none for any file

    @property
    def is_open(self) -> bool:
        """Whether this process can append."""
        return not self.closed and self._owner == os.getpid()

    def append(self, record: bytes) -> None:
        """Write ``record``.

        Raises:
            OSError: when it cannot be written, or the file was removed: what is written to it then, nobody can read.
            RuntimeError: in a forked process.
        """
        if self._owner != os.getpid():
            raise RuntimeError(f"{str(self.path)!r} is written by the process from which this one was forked")
        if self._has_links and os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the file was removed", str(self.path))
        written = 0
        try:
            while written < len(record):
                written += os.write(self._descriptor, memoryview(record)[written:])
        except BaseException:
            if written:
                with suppress(OSError):
                    self._take_out(written)
            raise

    def close(self) -> None:
        """Close the file; in a forked process it stays as it is. May be called more than once."""
        if not self.closed and self._owner == os.getpid():
            self.closed = True
            os.close(self._descriptor)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def _take_out(self, written: int) -> None:
        """Cut off the ``written`` bytes of a torn record, unless something else was appended since."""
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.fstat(self._descriptor).st_size == end:
            os.ftruncate(self._descriptor, end - written)
