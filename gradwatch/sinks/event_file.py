"""An event file that TensorBoard reads: one unbuffered write per event, so a killed run keeps all of them.

TensorBoard's own writer works in a thread, which holds the interpreter for its checksums in pure Python (0.2 us a
byte, most of what an event costs) and which a full disk kills for good. Writing in place is cheaper and simpler.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from gradwatch.sinks.appended_file import AppendedFile
from gradwatch.tfrecord import as_record

_serial = itertools.count()


class EventFile:
    """Appends events to a new file in ``directory``, made at the first event.

    Args:
        directory: where TensorBoard looks for the run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: AppendedFile | None = None

    @property
    def is_open(self) -> bool:
        """Whether the next event goes to the file of the last one; False in a forked process."""
        return self._file is not None and self._file.is_open

    def add_summary(self, summary: Summary, step: int) -> None:
        """Write ``summary`` as one event. Raises OSError where that fails, RuntimeError in a forked process."""
        if self._file is None or self._file.closed:  # a forked process goes on, and is told
            self._file = self._open()
        try:
            self._append(self._file, Event(wall_time=time.time(), step=step, summary=summary))
        except BaseException:
            with suppress(OSError):
                self.close()  # a reader may have seen a part of it, so nothing else may follow in this file
            raise

    def close(self) -> None:
        """Close the file; a later event opens a new one."""
        if self._file is not None:
            self._file.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}

    def _open(self) -> AppendedFile:
        started = f"{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.{next(_serial)}"
        file = AppendedFile(self._directory / f"events.out.tfevents.{started}.gradwatch")
        self._append(file, Event(wall_time=time.time(), file_version="brain.Event:2"))
        return file

    @staticmethod
    def _append(file: AppendedFile, event: Event) -> None:
        file.append(as_record(event.SerializeToString()))
