from __future__ import annotations

from io import BytesIO

import pytest

from gradwatch.tfrecord import as_record, read_records

RECORDS = (b"one", b"", b"three" * 1000)
WHOLE = b"".join(map(as_record, RECORDS))


def data(content: bytes, offset: int = 0) -> list[bytes | None]:
    return [record.data for record in read_records(BytesIO(content), offset)]


def test_records_are_framed_as_tensorflow_frames_them() -> None:
    # The CRC-32C of "123456789" is 0xE3069283 (RFC 3720); TFRecord rotates it right by 15 and adds 0xA282EAD8.
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    record = as_record(b"123456789")
    assert record[:8] == (9).to_bytes(8, "little")
    assert record[12:21] == b"123456789"
    assert record[21:] == masked.to_bytes(4, "little")


def test_what_was_written_is_read() -> None:
    found = [*read_records(BytesIO(WHOLE))]
    assert [record.data for record in found] == [*RECORDS]
    assert [record.begin for record in found] == [0, 19, 35]
    assert found[-1].end == len(WHOLE)
    assert data(WHOLE, found[2].begin) == [RECORDS[2]]


@pytest.mark.parametrize("cut", [1, 15, 16, 5003, len(WHOLE)])
def test_a_torn_tail_ends_it(cut: int) -> None:
    kept = WHOLE[: len(WHOLE) - cut]
    whole = [record for record, end in zip(RECORDS, (19, 35, len(WHOLE))) if end <= len(kept)]
    assert data(kept) == whole


def test_a_damaged_record_is_told_and_the_next_is_read() -> None:
    assert data(WHOLE[:13] + b"X" + WHOLE[14:]) == [None, *RECORDS[1:]]


def test_a_damaged_length_ends_it() -> None:
    assert data(WHOLE[:19] + b"\xff" + WHOLE[20:]) == [b"one"]


def test_a_length_beyond_the_file_is_not_believed() -> None:
    huge = as_record(b"")[:0] + _header(2**60) + b"data"
    assert data(as_record(b"one") + huge) == [b"one"]


@pytest.mark.parametrize("foreign", [b"", b"x", b"\x00" * 100, b"PK\x03\x04 not a record at all" * 10])
def test_what_is_no_record_is_none(foreign: bytes) -> None:
    assert data(foreign) == []


def _header(length: int) -> bytes:
    """A header with the right checksum, of a record of that length."""
    from gradwatch import tfrecord

    packed = length.to_bytes(8, "little")
    return packed + tfrecord._masked_crc(packed)
