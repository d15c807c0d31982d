"""Event files read without a server: quick, and content with what a run that was killed has left.

TensorBoard's reader checks every byte in pure Python, half a minute for 100,000 steps of 300 layers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING

from gradwatch import tags
from gradwatch.tensorboard_plugin.series import Series, described, histogram_series
from gradwatch.tfrecord import read_records

HISTOGRAMS = 100
"""Sampled steps whose histograms are read, evenly spread: as many as TensorBoard keeps."""


def runs(logdir: str | os.PathLike[str]) -> list[Path]:
    """The directories in ``logdir`` that hold event files, sorted."""
    return sorted({path.parent for path in Path(logdir).rglob("*tfevents*") if path.is_file()})


@dataclass
class _Rows:
    """A series while it is read."""

    content: dict[str, Any]
    steps: list[int] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)

    def series(self) -> Series:
        steps, written = np.array(self.steps, np.int64), np.array(self.written)
        if "layers" not in self.content:
            return Series(self.content, steps, written, texts=tuple(self.data))
        numbers = np.frombuffer(b"".join(self.data), "<f4")
        shape = len(steps), len(self.content["stats"]), len(self.content["layers"])
        return Series(self.content, steps, written, numbers.reshape(shape))


class RunEvents:
    """The event files of one run.

    Args:
        directory: of the run; directories in it are other runs.

    Raises:
        OSError: when a file cannot be read.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.notes: list[str] = []
        """What is wrong with the files, in sentences."""
        self._rows: dict[str, _Rows] = {}
        self._sampled: list[tuple[float, Path, int]] = []
        """Wall time, file and offset of the events that hold histograms."""
        for path in sorted(filter(Path.is_file, Path(directory).glob("*tfevents*")), key=_started):
            self._read(path)
        self.series = {tag: rows.series() for tag, rows in self._rows.items() if rows.steps}
        """What is under each of gradwatch's tags."""
        self._rows.clear()

    def histogram(self, layer: str) -> Series:
        """Of log10 |gradient| of ``layer``: numbers are [T, 1, buckets]."""
        return histogram_series(self._histograms.get(tags.layer_tag(tags.LAYER_HISTOGRAM, layer), []))

    @cached_property
    def _histograms(self) -> dict[str, list[tuple[int, float, Any, Any]]]:
        """Of each tag the steps, wall times, upper limits and counts."""
        found: dict[str, list[tuple[int, float, Any, Any]]] = {}
        shown = np.unique(np.linspace(0, len(self._sampled) - 1, HISTOGRAMS).astype(int)) if self._sampled else ()
        for written, path, offset in (self._sampled[i] for i in shown):
            with path.open("rb") as file:
                event = Event.FromString(next(read_records(file, offset)).data or b"")
            for value in event.summary.value:
                if value.HasField("histo"):
                    row = event.step, written, [*value.histo.bucket_limit], [*value.histo.bucket]
                    found.setdefault(value.tag, []).append(row)
        return found

    def _read(self, path: Path) -> None:
        damaged, end, written = 0, 0, 0.0
        with path.open("rb") as file:
            for record in read_records(file):
                end = record.end
                try:
                    event = Event.FromString(record.data) if record.data is not None else None
                except DecodeError:
                    event = None
                if event is None:
                    damaged += 1
                    continue
                written = max(written, event.wall_time)  # the clock of a machine may be set back
                self._take(event, written, path, record.begin)
            rest = file.seek(0, os.SEEK_END) - end
        if damaged:
            self.notes.append(f"{path.name}: {damaged} damaged record{'s' * (damaged > 1)} left out")
        if rest:
            self.notes.append(f"{path.name}: the last {rest} bytes are no whole record: cut off, or being written")

    def _take(self, event: Event, written: float, path: Path, offset: int) -> None:
        sampled = False
        for value in event.summary.value:
            tag = value.tag
            if tag.startswith(tags.OWN):
                rows = self._rows.get(tag)
                if rows is None:
                    plugin = value.metadata.plugin_data
                    content = described(plugin.content) if plugin.plugin_name == tags.PLUGIN else None
                    if content is None:
                        continue
                    rows = self._rows[tag] = _Rows(content)
                data = _data(value.tensor, rows.content)
                if data is not None:
                    rows.steps.append(event.step)
                    rows.written.append(written)
                    rows.data.append(data)
            elif not sampled and tag.startswith(tags.LAYER_HISTOGRAM):
                sampled = True
                self._sampled.append((written, path, offset))


def _data(tensor: TensorProto, content: dict[str, Any]) -> bytes | None:
    """The bytes of a tensor that is as its tag says, else None."""
    if "layers" in content:
        data: bytes = tensor.tensor_content
        wanted = 4 * len(content["stats"]) * len(content["layers"])
        return data if tensor.dtype == DT_FLOAT and len(data) == wanted else None
    return tensor.string_val[0] if tensor.dtype == DT_STRING and len(tensor.string_val) == 1 else None


def _started(path: Path) -> tuple[float, str]:
    """Sorts event files by when they were begun."""
    try:
        with path.open("rb") as file:
            first = next(read_records(file)).data
        return Event.FromString(first or b"").wall_time, path.name
    except (StopIteration, DecodeError):
        return 0.0, path.name
