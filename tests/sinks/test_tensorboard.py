"""What the TensorBoard sink writes is read back with TensorBoard's own reader."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader as EventFileLoader
from tensorboard.util.tensor_util import make_ndarray
from torch import nn

import gradwatch as gw
from gradwatch import tags
from gradwatch.records import Alert, ClipRecord, Report, Severity, StepStats
from gradwatch.sinks.summaries import SPECIAL, alert_table, escape
from gradwatch.tensorboard_plugin.events import runs
from gradwatch.tensorboard_plugin.tables import read as read_run
from tests.norm_table import read_norms


def stats(step, norms, **more):
    norm = np.array([0.0 if n is None else n for n in norms.values()])
    has_grad = np.array([n is not None for n in norms.values()])
    return StepStats(step, tuple(norms), norm, has_grad, float(np.sqrt((norm**2).sum())), **more)


def report(step, norms, alerts=(), clip=None, **more):
    return Report("healthy", Severity.INFO, tuple(alerts), (), stats(step, norms, **more), clip)


def read(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0, "scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def written(directory):
    return [event for path in sorted(directory.glob("*tfevents*")) for event in EventFileLoader(str(path)).Load()]


def test_norms_come_back_as_they_were_measured(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path)
    sink.write(report(0, {"a": 1.5, "b": None, "c": 0.0}))
    sink.write(report(1, {"a": float("nan"), "b": 2.5, "c": float("inf")}))
    sink.close()
    table = read_norms(tmp_path)
    assert table.layers == ("a", "b", "c")
    assert table.steps.tolist() == [0, 1]
    np.testing.assert_array_equal(table.grad_norm, [[1.5, 0, 0], [np.nan, 2.5, np.inf]])
    np.testing.assert_array_equal(table.has_grad, [[True, False, True], [True, True, True]])


def test_one_event_per_step_with_the_aggregates(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path, scalars_every=0)
    sink.write(report(7, {"a": 3.0, "b": 4.0, "c": None}, clip=ClipRecord("global_norm", 5.0, 1.0, 0.2, 1.0)))
    sink.close()
    events = [event for event in written(tmp_path) if event.HasField("summary")]
    assert [event.step for event in events] == [7]
    scalars = {v.tag: v.simple_value for v in events[0].summary.value if v.HasField("simple_value")}
    assert scalars == pytest.approx(
        {
            tags.TOTAL_NORM: 5.0,
            tags.LOG10_MIN_NORM: np.log10(3),
            tags.LOG10_MEDIAN_NORM: np.log10(12) / 2,
            tags.LOG10_MAX_NORM: np.log10(4),
            tags.NONFINITE_LAYERS: 0,
            tags.ALERT_COUNT: 0,
            tags.CLIPPED_NORM: 1.0,
            tags.CLIP_COEFFICIENT: 0.2,
        }
    )


def test_layer_scalars_come_at_their_cadence(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path, scalars_every=10)
    for step in range(25):
        sink.write(report(step, {"block/0": float(step), "frozen": None}))
    sink.close()
    accumulator = read(tmp_path)
    found = accumulator.Scalars("grad_norm/block|0")
    assert [(event.step, event.value) for event in found] == [(0, 0.0), (10, 10.0), (20, 20.0)]
    assert "grad_norm/frozen" not in accumulator.Tags()["scalars"]


def test_histogram_and_sampled_statistics(tmp_path):
    counts = np.zeros((1, len(tags.HISTOGRAM_EDGES) - 1), np.int64)
    counts[0, 10], counts[0, 12] = 3, 5
    sampled = {
        "max_abs": np.array([0.5]),
        "zero_fraction": np.array([0.25]),
        "nonfinite": np.array([2]),
        "param_norm": np.array([7.0]),
        "update_ratio": np.array([1e-3]),
    }
    sink = gw.sinks.TensorBoard(tmp_path)
    sink.write(report(0, {"a": 1.0}, histogram=counts, **sampled))
    sink.close()
    accumulator = read(tmp_path)
    (event,) = accumulator.Histograms("grad_log10_abs/a")
    value = event.histogram_value
    edges = tags.HISTOGRAM_EDGES
    assert (value.min, value.max, value.num) == (edges[10], edges[13], 8)
    assert list(value.bucket) == [3, 0, 5]
    assert list(value.bucket_limit) == edges[11:14].tolist()
    (event,) = accumulator.Tensors(tags.chunk_tag(tags.SAMPLED, 0, ["a"]))
    np.testing.assert_allclose(make_ndarray(event.tensor_proto)[:, 0], [0.5, 0.25, 2, 7])
    (event,) = accumulator.Tensors(tags.chunk_tag(tags.UPDATE_RATIO, 0, ["a"]))
    np.testing.assert_allclose(make_ndarray(event.tensor_proto), [1e-3])


def test_alert_table_grows_and_is_escaped(tmp_path):
    name = "<script>alert(1)</script>|`x`" + "n" * 300
    sink = gw.sinks.TensorBoard(tmp_path)
    for step in range(3):
        alert = Alert(step, "dead", name, Severity.WARNING, 0.0, 0.0, f"{name}: zero")
        sink.write(report(step, {name: 0.0}, [alert]))
    sink.close()
    texts = [
        make_ndarray(event.tensor_proto).item().decode()
        for event in read(tmp_path).Tensors(f"{tags.ALERTS}/text_summary")
    ]
    assert [text.count("\n") for text in texts] == [2, 3, 4]
    row = texts[-1].splitlines()[2]
    assert row.startswith("| 2 | warning | dead |")
    assert row.count("|") == 6
    assert "<" not in row
    assert "`" not in row


def test_escape_leaves_no_special_character():
    assert not SPECIAL & (set(escape("".join(SPECIAL))) - set("&#;"))


def test_a_changed_set_of_layers_gets_tags_of_its_own(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path)
    sink.write(report(0, {"a": 1.0, "b": 2.0}))
    sink.write(report(1, {"b": 3.0, "c": 4.0}))
    sink.write(report(tags.CHUNK_STEPS, {"b": 5.0, "c": 6.0}))
    sink.close()
    table = read_norms(tmp_path)
    assert table.layers == ("a", "b", "c")
    np.testing.assert_array_equal(table.grad_norm, [[1, 2, 0], [0, 3, 4], [0, 5, 6]])
    np.testing.assert_array_equal(table.has_grad, [[1, 1, 0], [0, 1, 1], [0, 1, 1]])


def test_a_step_written_again_after_a_resume_counts_once(tmp_path):
    for norm in (1.0, 2.0):
        sink = gw.sinks.TensorBoard(tmp_path)
        sink.write(report(0, {"a": norm}))
        sink.close()
    assert read_norms(tmp_path).grad_norm.tolist() == [[2.0]]


def test_layout_is_written_once_and_can_be_left_out(tmp_path):
    for directory, layout in (("with", True), ("without", False)):
        sink = gw.sinks.TensorBoard(tmp_path / directory, layout=layout)
        for step in range(3):
            sink.write(report(step, {"a": 1.0}))
        sink.close()
    assert len(read(tmp_path / "with").Tensors("custom_scalars__config__")) == 1
    assert "custom_scalars__config__" not in read(tmp_path / "without").Tags()["tensors"]
    assert [path.name for path in runs(tmp_path)] == ["with", "without"]


def test_a_summary_writer_is_shared_and_left_open(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    sink = gw.sinks.TensorBoard(writer)
    sink.write(report(0, {"a": 1.0}))
    sink.close()
    writer.add_scalar("mine", 2.0, 0)
    writer.close()
    assert len(list(tmp_path.iterdir())) == 1
    accumulator = read(tmp_path)
    assert accumulator.Scalars("mine")[0].value == 2.0
    assert read_norms(tmp_path).grad_norm.tolist() == [[1.0]]


def test_it_pickles_and_makes_no_file_before_the_first_step(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path)
    sink.write(report(0, {"a": 1.0}))
    copy = pickle.loads(pickle.dumps(sink))
    copy.write(report(1, {"a": 2.0}))
    copy.close()
    sink.close()
    assert read_norms(tmp_path).steps.tolist() == [0, 1]
    unused = gw.sinks.TensorBoard(tmp_path / "unused")
    unused.close()
    assert list((tmp_path / "unused").iterdir()) == []


def test_bytes_per_step_stay_small(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path, scalars_every=0)
    norms = {f"transformer.h.{i}.mlp.c_fc": 1.0 for i in range(300)}
    sink.write(report(0, norms))
    (path,) = tmp_path.iterdir()
    before = path.stat().st_size
    sink.write(report(1, norms))
    sink.close()
    assert path.stat().st_size - before <= 1500


@pytest.mark.parametrize("bad", [None, 3, object()])
def test_what_is_no_writer_is_refused(bad):
    with pytest.raises(TypeError, match="TensorBoard takes a directory or a SummaryWriter, got"):
        gw.sinks.TensorBoard(bad)


def test_an_unwritable_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"TensorBoard: logdir: cannot write to '.*file/run': Not a directory"):
        gw.sinks.TensorBoard(tmp_path / "file" / "run")


def test_a_failing_write_drops_the_sink_and_training_goes_on(tmp_path):
    model = nn.Linear(2, 1)
    sink, memory = gw.sinks.TensorBoard(tmp_path), gw.sinks.Memory()
    monitor = gw.Monitor(model, sinks=[sink, memory])
    model(torch.ones(1, 2)).sum().backward()
    monitor.step()
    os.close(sink._file._file._descriptor)  # what a removed disk looks like
    with pytest.warns(gw.faults.GradwatchWarning, match="sink TensorBoard failed, it is dropped: OSError"):
        monitor.step()
    monitor.step()
    assert len(memory.reports) == 3
    assert read_norms(tmp_path).steps.tolist() == [0]


def test_table_has_a_row_for_each_alert_newest_first():
    alerts = [Alert(i, "dead", "a", Severity.WARNING, 0.0, 0.0, "zero") for i in range(700)]
    lines = alert_table(alerts).splitlines()
    assert len(lines) == 2 + 500
    assert lines[2].startswith("| 699 |")


def test_another_model_in_the_same_directory_keeps_its_own_names(tmp_path):
    for norms, step in (({"a": 1.0, "b": 2.0}, 0), ({"b": 20.0, "c": 30.0, "a": 10.0}, 1)):
        sink = gw.sinks.TensorBoard(tmp_path)
        sink.write(report(step, norms))
        sink.close()
    table = read_norms(tmp_path)
    assert table.layers == ("b", "c", "a")
    np.testing.assert_array_equal(table.grad_norm, [[2, 0, 1], [20, 30, 10]])


def test_layer_scalars_are_not_missed_by_another_cadence(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path, scalars_every=10)
    for step in range(0, 50, 7):
        sink.write(report(step, {"a": float(step)}))
    sink.close()
    assert [event.step for event in read(tmp_path).Scalars("grad_norm/a")] == [0, 14, 21, 35, 42]


def verdict_of(directory):
    return read_run(directory).said.verdict


def test_closing_writes_the_last_verdict_once(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path)
    for step in range(3):
        sink.write(replace(report(step, {"a": 1.0}), verdict=f"healthy: {step + 1} steps"))
    assert verdict_of(tmp_path) == "healthy: 1 steps"
    sink.close()
    assert verdict_of(tmp_path) == "healthy: 3 steps"
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    sink.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == size


def test_the_last_verdict_goes_through_a_shared_writer_while_it_is_open(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for name, wanted in (("open", "healthy: 2 steps"), ("closed", "healthy: 1 steps")):
        writer = SummaryWriter(tmp_path / name)
        sink = gw.sinks.TensorBoard(writer)
        for step in range(2):
            sink.write(replace(report(step, {"a": 1.0}), verdict=f"healthy: {step + 1} steps"))
        if name == "closed":
            writer.close()
        sink.close()
        writer.close()
        assert verdict_of(tmp_path / name) == wanted


def test_a_copy_that_wrote_nothing_writes_no_verdict(tmp_path):
    sink = gw.sinks.TensorBoard(tmp_path)
    for step in range(2):
        sink.write(report(step, {"a": 1.0}))
    pickle.loads(pickle.dumps(sink)).close()
    assert len(list(tmp_path.iterdir())) == 1
    sink.close()


def test_the_file_is_closed_also_where_the_last_verdict_cannot_be_written(tmp_path, monkeypatch):
    sink = gw.sinks.TensorBoard(tmp_path)
    for step in range(2):
        sink.write(replace(report(step, {"a": 1.0}), verdict=str(step)))
    file = sink._file._file
    monkeypatch.setattr(file, "append", lambda record: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        sink.close()
    assert file.closed
