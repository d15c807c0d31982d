"""An event file that TensorBoard reads: one unbuffered write per event, so a killed run keeps every step.

TensorBoard's own writer works in a thread, which holds the interpreter for its checksums in pure Python (0.2 us a
byte, most of what an event costs) and which a full disk kills for good. Writing in place is cheaper and simpler.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from pathlib import Path

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

_serial = itertools.count()


class EventFile:
    """Appends events to a new file in ``directory``, made at the first event.

    A forked process gets a file of its own, since two that write to one would break it.

    Args:
        directory: where TensorBoard looks for the run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._pid = 0

    def add_summary(self, summary: Summary, step: int) -> None:
        """Write ``summary`` as one event. Raises OSError where that fails."""
        if self._descriptor is None or self._pid != os.getpid():
            self._open()
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Close the file; a later event opens a new one."""
        if self._descriptor is not None and self._pid == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_descriptor": None}

    def _open(self) -> None:
        self._pid = os.getpid()
        started = f"{time.time():.6f}.{socket.gethostname()}.{self._pid}.{next(_serial)}"
        path = self._directory / f"events.out.tfevents.{started}.gradwatch"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _write(self, event: Event) -> None:
        assert self._descriptor is not None
        record = memoryview(as_record(event.SerializeToString()))
        while record:
            record = record[os.write(self._descriptor, record) :]


def as_record(data: bytes) -> bytes:
    """``data`` framed as TFRecord does: length, checksum of the length, data, checksum of the data.

    >>> len(as_record(b"event")) - len(b"event")
    16
    """
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
