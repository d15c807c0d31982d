"""TFRecord, the framing of event files: length, checksum of the length, data, checksum of the data."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import google_crc32c

HEADER, FOOTER = 12, 4
"""Bytes before and after the data."""


class Record(NamedTuple):
    """One record that was read: where it begins and ends in the file, and its data, None where that is damaged."""

    begin: int
    end: int
    data: bytes | None


def as_record(data: bytes) -> bytes:
    """``data`` as it is written.

    >>> len(as_record(b"event")) - len(b"event")
    16
    """
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def read_records(file: BinaryIO, offset: int = 0) -> Iterator[Record]:
    """The records of ``file`` from ``offset`` on, up to where one is torn, or where no record begins.

    >>> from io import BytesIO
    >>> [record.data for record in read_records(BytesIO(as_record(b"one") + as_record(b"two")[:-1]))]
    [b'one']
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(offset)
    while len(header := file.read(HEADER)) == HEADER and _masked_crc(header[:8]) == header[8:]:
        (length,) = struct.unpack_from("<Q", header)
        begin, offset = offset, offset + HEADER + length + FOOTER
        if offset > size:
            return
        body = file.read(length + FOOTER)
        data = body[:-FOOTER]
        yield Record(begin, offset, data if _masked_crc(data) == body[-FOOTER:] else None)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
