"""Event files of every kind of health are read as far as they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from gradwatch import tags
from gradwatch.tensorboard_plugin.events import HISTOGRAMS, RunEvents, runs
from gradwatch.tensorboard_plugin.tables import read
from gradwatch.tfrecord import as_record
from tests.event_logs import event_files, layer_names, sampled, write

LAYERS = layer_names(3)
NORMS = np.arange(1.0, 31.0).reshape(10, 3)


def only_series(directory: Path, prefix: str) -> np.ndarray:
    (tag,) = (tag for tag in RunEvents(directory).series if tag.startswith(f"{prefix}/"))
    numbers = RunEvents(directory).series[tag].numbers
    assert numbers is not None
    return numbers


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS)
    events = RunEvents(tmp_path)
    (series,) = (s for tag, s in events.series.items() if tag.startswith(tags.NORMS))
    assert series.layers == LAYERS
    assert series.steps.tolist() == [*range(10)]
    np.testing.assert_array_equal(series.row("grad_norm"), NORMS)
    np.testing.assert_allclose(series.total, np.linalg.norm(NORMS, axis=1))
    assert (np.diff(series.written) >= 0).all()
    assert events.notes == []


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_a_torn_tail_loses_one_step_and_is_told(cut: int, tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS, close=False)
    (path,) = event_files(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    np.testing.assert_array_equal(only_series(tmp_path, tags.NORMS)[:, 0], NORMS[:9])
    (note,) = RunEvents(tmp_path).notes
    assert note.startswith(f"{path.name}: the last ")
    assert note.endswith(" bytes are no whole record: cut off, or being written")


def test_a_flipped_byte_loses_that_step_alone(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS, close=False)
    (path,) = event_files(tmp_path)
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(bytes(content))
    np.testing.assert_array_equal(only_series(tmp_path, tags.NORMS)[:, 0], NORMS[:9])
    assert RunEvents(tmp_path).notes == [f"{path.name}: 1 damaged record left out"]


def test_a_whole_record_that_is_no_event_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS)
    (path,) = event_files(tmp_path)
    path.write_bytes(path.read_bytes() + as_record(b"\xff\xff\xff"))
    assert len(read(tmp_path).norms.steps) == 10
    assert RunEvents(tmp_path).notes == [f"{path.name}: 1 damaged record left out"]


def test_files_that_are_none_of_ours_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS)
    (tmp_path / "events.out.tfevents.1.empty").write_bytes(b"")
    (tmp_path / "events.out.tfevents.2.text").write_text("no record at all")
    (tmp_path / "events.out.tfevents.3.directory").mkdir()
    foreign = Event(wall_time=1.0, step=3, summary=Summary(value=[Summary.Value(tag="loss", simple_value=2.0)]))
    (tmp_path / "events.out.tfevents.4.foreign").write_bytes(as_record(foreign.SerializeToString()))
    assert len(read(tmp_path).norms.steps) == 10


@pytest.mark.parametrize("content", [b"", b"no record at all" * 5])
def test_a_run_without_norms_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    with pytest.raises(ValueError, match=r"holds no gradient norms of gradwatch"):
        read(tmp_path)


def tensor_event(tag: str, content: bytes, plugin: str = tags.PLUGIN, data: bytes = b"\0" * 12) -> bytes:
    value = Summary.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = plugin
    value.metadata.plugin_data.content = content
    value.tensor.dtype = 1
    value.tensor.tensor_content = data
    value.tensor.tensor_shape.dim.add().size = len(data) // 4
    return as_record(Event(wall_time=2.0, step=50, summary=Summary(value=[value])).SerializeToString())


GOOD = b'{"version": 1, "stats": ["grad_norm"], "layers": ["a", "b", "c"]}'


@pytest.mark.parametrize(
    "event",
    [
        tensor_event("gradwatch/norms/x", b""),
        tensor_event("gradwatch/norms/x", b"\xff\xfe"),
        tensor_event("gradwatch/norms/x", b"[1]"),
        tensor_event("gradwatch/norms/x", b"{}"),
        tensor_event("gradwatch/norms/x", GOOD.replace(b"1,", b"99,")),
        tensor_event("gradwatch/norms/x", GOOD.replace(b'"a"', b"3")),
        tensor_event("gradwatch/norms/x", GOOD.replace(b'["grad_norm"]', b"[]")),
        tensor_event("gradwatch/norms/x", GOOD, plugin="another"),
        tensor_event("gradwatch/norms/x", GOOD, data=b"\0" * 8),
        tensor_event("gradwatch/verdict", b'{"version": 1}'),
    ],
    ids=range(10),
)
def test_what_others_write_under_our_tags_is_not_believed(event: bytes, tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS)
    (tmp_path / "events.out.tfevents.9.foreign").write_bytes(event)
    found = read(tmp_path)
    np.testing.assert_array_equal(np.concatenate(found.norms.parts), NORMS)
    assert found.said.verdict == "healthy: 10 steps"


def test_the_same_event_as_ours_would_be_believed(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.9").write_bytes(tensor_event("gradwatch/norms/x", GOOD))
    assert read(tmp_path).norms.steps.tolist() == [50]


def test_histograms_come_back_in_their_buckets(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS, sample_every=3)
    events = RunEvents(tmp_path)
    for i, layer in enumerate(LAYERS):
        series = events.histogram(layer)
        assert series.steps.tolist() == [0, 3, 6, 9]
        assert series.numbers is not None
        for step, counts in zip(series.steps, series.numbers[:, 0]):
            np.testing.assert_array_equal(counts, sampled(3, step)["histogram"][i])
    assert len(events.histogram("unknown").steps) == 0


def test_of_many_histograms_some_are_read_the_first_and_the_last_among_them(tmp_path: Path) -> None:
    steps = 2 * HISTOGRAMS + 1
    write(tmp_path, LAYERS[:1], np.ones((steps, 1)), sample_every=1)
    found = RunEvents(tmp_path).histogram(LAYERS[0]).steps
    assert len(found) == HISTOGRAMS
    assert (found[0], found[-1]) == (0, steps - 1)
    assert set(np.diff(found)) <= {2, 3}


def test_runs_are_the_directories_that_hold_event_files(tmp_path: Path) -> None:
    for name in ("b", "a/deep", "."):
        write(tmp_path / name, LAYERS, NORMS[:1])
    (tmp_path / "empty").mkdir()
    assert runs(tmp_path) == [tmp_path, tmp_path / "a" / "deep", tmp_path / "b"]
