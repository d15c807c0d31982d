"""TensorBoard: one event per step, with all layers in one tensor and a handful of scalars."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from gradwatch import tags
from gradwatch.patterns import check_whole_number
from gradwatch.records import Alert, ClipRecord, FloatArray, Report, StepStats
from gradwatch.sinks import numbers
from gradwatch.sinks.alert_blocks import AlertBlocks
from gradwatch.sinks.counts import Counts
from gradwatch.sinks.paths import writable_directory
from gradwatch.sinks.verdicts import Verdicts
from gradwatch.told import Told

try:
    from tensorboard.compat.proto.summary_pb2 import Summary

    from gradwatch.sinks import summaries
    from gradwatch.sinks.event_file import EventFile
except ImportError as error:
    raise ImportError(f'gradwatch.sinks.TensorBoard needs: pip install "gradwatch[tensorboard]" ({error})') from error


class TensorBoard:
    """Writes each report into TensorBoard's event files.

    At every step one event, about 1.4 kB for 300 layers: a tensor with every layer's norm and, as scalars, the total
    norm, the least, median and largest layer norm and what was clipped; when they change also the alerts so far and the
    layers that are not finite. Every ``scalars_every`` steps also one scalar per layer, and on sampled steps a
    histogram of log10 |gradient| per layer. Alerts are one growing table under Text, and the Custom Scalars tab has a
    layout. The Gradients tab and ``gradwatch report`` read the tensor, and what is written for them alone: alerts,
    verdicts with their causes, clip records and backward profiles. A process forked from the one that writes does not
    write.

    Args:
        logdir_or_writer: a directory, made if it is not there; or a ``SummaryWriter`` whose file is shared, since
            TensorBoard follows only one live file per run.
        scalars_every: steps between two scalars per layer, 0 for none.
        layout: whether to write the layout of the Custom Scalars tab.

    Raises:
        ImportError: without the extra ``gradwatch[tensorboard]``.
        TypeError: when ``logdir_or_writer`` is neither.
        ValueError: when the directory cannot be written to, with its path and the reason; or ``scalars_every`` is
            below 0.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     sink = TensorBoard(directory)
        ...     sink.write(Report("no step was recorded yet", severity=0))
        ...     sink.close()
        ...     print(os.listdir(directory))
        []
    """

    may_wait = True

    def __init__(
        self, logdir_or_writer: str | os.PathLike[str] | _Writer, *, scalars_every: int = 100, layout: bool = True
    ) -> None:
        check_whole_number("TensorBoard: scalars_every", scalars_every, at_least=0)
        self._file: EventFile | None = None
        self._writer: _Writer | None = None
        if isinstance(logdir_or_writer, (str, os.PathLike)):
            self._file = EventFile(writable_directory("TensorBoard: logdir", logdir_or_writer))
        elif hasattr(logdir_or_writer, "_get_file_writer"):
            self._writer = logdir_or_writer
        else:
            raise TypeError(f"TensorBoard takes a directory or a SummaryWriter, got {logdir_or_writer!r}")
        self._owner = os.getpid()
        self._scalars_every = scalars_every
        self._layout = layout
        self._alerts: list[Alert] = []
        self._told = Told()
        self._counts = Counts()
        self._verdicts = Verdicts()
        self._blocks = AlertBlocks()
        self._period = -1
        self._tags: set[str] = set()

    def write(self, report: Report) -> None:
        if report.stats is None:
            return
        self._alerts += report.alerts
        if self._writer is None and not self._is_open():
            self._tags.clear()  # each file says what its tensors hold, whatever becomes of the others
        found = numbers.counts(report.stats, report.alerts, self._told)
        counts = self._counts.due(report.stats.step, found)
        values = self._values(report, report.stats) + summaries.scalars(counts.pop(report.stats.step, {}))
        for earlier, before in counts.items():
            self._add(Summary(value=summaries.scalars(before)), earlier)
        self._add(Summary(value=values), report.stats.step)

    def close(self) -> None:
        """Write the last verdict and close the file; a writer that was given is left open, but written out."""
        try:
            for verdict in self._verdicts.last() if self._is_open() else ():
                self._add(Summary(value=[self._text(tags.VERDICT, verdict)]), verdict["step"])
        finally:
            if self._file is not None:
                self._file.close()
        if self._writer is not None and self._is_open():
            _running(self._writer)
            self._writer.flush()

    def _is_open(self) -> bool:
        """Whether an event can follow on the last one, from this process."""
        if self._writer is None:
            return self._file is not None and self._file.is_open
        return self._owner == os.getpid() and not _is_closed(self._writer)

    def _values(self, report: Report, stats: StepStats) -> list[Any]:
        values = self._tensors(stats, report.clip) + self._texts(report, stats)
        values += summaries.scalars(numbers.aggregates(stats, report.clip))
        if self._scalars_every:
            period = stats.step // self._scalars_every
            if period != self._period:
                self._period = period
                values += summaries.scalars(numbers.layer_norms(stats))
        values += summaries.layer_histograms(stats)
        if report.alerts:
            values.append(summaries.text(tags.ALERTS, summaries.alert_table(self._alerts)))
            values.append(summaries.text(tags.REPORT, summaries.report_text(report)))
        if self._layout:
            self._layout = False
            values.append(summaries.layout())
        return values

    def _tensors(self, stats: StepStats, clip: ClipRecord | None) -> list[Any]:
        norms = np.where(stats.has_grad, stats.grad_norm, tags.NO_GRADIENT)
        values = [self._tensor(tags.NORMS, {"grad_norm": norms}, stats)]
        sampled = {name: getattr(stats, name) for name in ("max_abs", "zero_fraction", "nonfinite", "param_norm")}
        if all(array is not None for array in sampled.values()):
            values.append(self._tensor(tags.SAMPLED, sampled, stats))
        if stats.update_ratio is not None:
            values.append(self._tensor(tags.UPDATE_RATIO, {"update_ratio": stats.update_ratio}, stats))
        if clip is not None:
            names, numbers = summaries.clip_rows(clip)
            tag = tags.chunk_tag(tags.CLIP, stats.step, names)
            values.append(summaries.layer_tensor(tag, numbers, names, self._is_first(tag)))
        return values

    def _tensor(self, prefix: str, rows: Mapping[str, FloatArray], stats: StepStats) -> Any:
        tag = tags.chunk_tag(prefix, stats.step, stats.layers)
        return summaries.layer_tensor(tag, rows, stats.layers, self._is_first(tag))

    def _texts(self, report: Report, stats: StepStats) -> list[Any]:
        """What the Gradients tab reads as text: alerts, verdicts, backward profiles."""
        values = [self._text(tag, block) for tag, block in self._blocks.add(report.alerts).items()]
        values += [self._text(tags.VERDICT, verdict) for verdict in self._verdicts.due(report)]
        if report.profile is not None:
            values.append(
                self._text(tags.chunk_tag(tags.PROFILE, stats.step), summaries.profile_content(report.profile))
            )
        return values

    def _text(self, tag: str, content: object) -> Any:
        return summaries.plain_text(tag, content, self._is_first(tag))

    def _is_first(self, tag: str) -> bool:
        """Whether nothing was written under ``tag`` in this file yet: what it holds is read once."""
        if tag in self._tags:
            return False
        self._tags.add(tag)
        return True

    def _add(self, summary: Summary, step: int) -> None:
        if self._writer is None:
            assert self._file is not None
            self._file.add_summary(summary, step)
        elif self._owner != os.getpid():
            raise RuntimeError("the SummaryWriter belongs to the process from which this one was forked")
        else:
            _running(self._writer).add_summary(_as_read_by(self._writer, summary), step)


class _Writer(Protocol):
    """What is needed of a SummaryWriter, torch's or tensorboardX's."""

    def _get_file_writer(self) -> Any: ...

    def flush(self) -> None: ...


def _is_closed(writer: _Writer) -> bool:
    return getattr(writer, "all_writers", ()) is None


def _running(writer: _Writer) -> Any:
    """The file writer of ``writer``; raises OSError where its thread has ended, as on a full disk.

    What is handed to a thread that has ended is lost, and once its queue is full, tensorboardX waits for ever.
    """
    file_writer = writer._get_file_writer()
    events = getattr(file_writer, "event_writer", None)
    thread = getattr(getattr(events, "_async_writer", events), "_worker", None)  # torch's, else tensorboardX's
    if thread is not None and not thread.is_alive():
        raise getattr(thread, "exception", None) or OSError("the thread of the SummaryWriter has ended")
    return file_writer


def _as_read_by(writer: _Writer, summary: Summary) -> Any:
    """tensorboardX has protocol buffers of its own, with the same bytes."""
    if not type(writer).__module__.startswith("tensorboardX"):
        return summary
    from tensorboardX.proto.summary_pb2 import Summary as OtherSummary  # type: ignore[import-not-found]

    return OtherSummary.FromString(summary.SerializeToString())
