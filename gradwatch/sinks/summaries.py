"""From records to TensorBoard's summaries: pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_TENSOR,
    HistogramProto,
    Summary,
    SummaryMetadata,
)
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2

from gradwatch import tags
from gradwatch.records import Alert, ClipRecord, FloatArray, Report, StepStats, to_plain

if TYPE_CHECKING:
    from gradwatch.profile import BackwardProfile

SPECIAL = frozenset("\\`*_{}[]<>()#+-.!|~&'\":=")
"""Characters that mean something in markdown or HTML."""

_ESCAPES = str.maketrans({c: f"&#{ord(c)};" for c in SPECIAL})

_EDGES = tags.HISTOGRAM_EDGES.tolist()
_CENTRES = (tags.HISTOGRAM_EDGES[:-1] + tags.HISTOGRAM_EDGES[1:]) / 2

ROWS = 500
"""Alerts kept in the table: the newest, which TensorBoard still renders at once."""


def scalars(numbers: Mapping[str, float]) -> list[Summary.Value]:
    """One number for each series, by its tag."""
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]


def layer_tensor(tag: str, rows: Mapping[str, FloatArray], layers: Sequence[str], first: bool) -> Summary.Value:
    """All layers in one tensor, float32 [L] or of several statistics [statistics, L].

    ``first`` adds the names, which are read once per tag.
    """
    array = np.array([*rows.values()], "<f4")
    if len(array) == 1:
        array = array[0]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in array.shape])
    value = Summary.Value(
        tag=tag, tensor=TensorProto(dtype=DT_FLOAT, tensor_shape=shape, tensor_content=array.tobytes())
    )
    if first:
        content = {"version": tags.FORMAT_VERSION, "stats": list(rows), "layers": list(layers)}
        value.metadata.CopyFrom(_metadata(tags.PLUGIN, json.dumps(content).encode()))
    return value


def clip_rows(clip: ClipRecord) -> tuple[list[str], dict[str, FloatArray]]:
    """The names of a record and of all its parts, the whole first, and what became of each.

    >>> names, rows = clip_rows(ClipRecord("global_norm", 4.0, 1.0, 0.25, 1.0, clipped=1.0))
    >>> names, {name: row.tolist() for name, row in rows.items()}["coefficient"]
    (['global_norm'], [0.25])
    """
    records = [clip]
    for record in records:  # grows while it is walked through
        records += record.parts
    names = [f"{record.policy} {record.group}".rstrip() for record in records]
    return names, {name: np.array([getattr(record, name) for record in records]) for name in tags.CLIP_NUMBERS}


def plain_text(tag: str, content: object, first: bool) -> Summary.Value:
    """JSON for the Gradients tab; a non-finite number is the string "nan", "inf" or "-inf"."""
    data = json.dumps(to_plain(content), separators=(",", ":")).encode()
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[data])
    value = Summary.Value(tag=tag, tensor=tensor)
    if first:
        value.metadata.CopyFrom(_metadata(tags.PLUGIN, json.dumps({"version": tags.FORMAT_VERSION}).encode()))
    return value


def profile_content(profile: BackwardProfile) -> dict[str, Any]:
    """A backward profile, with what it comes down to."""
    numbers = {name: getattr(profile, name) for name in ("log_gain", "gain_per_layer", "depth")}
    return {**to_plain(profile), **numbers}


def layer_histograms(stats: StepStats) -> list[Summary.Value]:
    """Histogram of log10 |gradient| of each layer that has elements to count.

    TensorBoard draws 30 equally wide bins between the least and the largest value it sees, so the logarithm is what is
    binned: on a linear axis every gradient is one spike at zero.
    """
    if stats.histogram is None:
        return []
    filled = stats.histogram > 0
    low, high = filled.argmax(axis=1), len(_CENTRES) - filled[:, ::-1].argmax(axis=1)
    sums = stats.histogram @ np.stack([np.ones_like(_CENTRES), _CENTRES, _CENTRES**2], axis=1)
    columns = zip(stats.layers, stats.histogram.tolist(), low.tolist(), high.tolist(), sums.tolist())
    return [
        Summary.Value(tag=tags.layer_tag(tags.LAYER_HISTOGRAM, name), histo=_histogram(counts, low, high, *sums))
        for name, counts, low, high, sums in columns
        if sums[0]
    ]


def text(tag: str, markdown: str) -> Summary.Value:
    """A text, shown as markdown."""
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[markdown.encode()])
    return Summary.Value(tag=f"{tag}/text_summary", metadata=_metadata("text"), tensor=tensor)


def alert_table(alerts: Sequence[Alert]) -> str:
    """All alerts so far as a markdown table, newest first: TensorBoard keeps a sample of texts, but always the last.

    >>> from gradwatch.records import Severity
    >>> print(alert_table([Alert(3, "dead", "a|b", Severity.WARNING, 0.0, 0.0, "zero")]))
    | step | severity | rule | layer | what |
    |---:|---|---|---|---|
    | 3 | warning | dead | a&#124;b | zero |
    """
    lines = ["| step | severity | rule | layer | what |", "|---:|---|---|---|---|"]
    for alert in alerts[: -ROWS - 1 : -1]:
        cells = (alert.severity.name.lower(), alert.rule, alert.layer or "", alert.message)
        lines.append(f"| {alert.step} | {' | '.join(escape(cell) for cell in cells)} |")
    return "\n".join(lines)


def report_text(report: Report) -> str:
    """The report as markdown, a paragraph per section."""
    return "\n\n".join(f"**{title}**  \n" + "  \n".join(map(escape, lines)) for title, lines in report.sections())


def escape(cell: str) -> str:
    """``cell`` on one line, with every character that markdown or HTML would take for its own made harmless.

    >>> escape("<b>x</b>")
    '&#60;b&#62;x&#60;/b&#62;'
    """
    return tags.printable(cell).translate(_ESCAPES)


def layout() -> Summary.Value:
    """The Custom Scalars tab: total norm, and the layers' median between their extremes."""
    Margin = layout_pb2.MarginChartContent  # noqa: N806
    band = Margin.Series(value=tags.LOG10_MEDIAN_NORM, lower=tags.LOG10_MIN_NORM, upper=tags.LOG10_MAX_NORM)
    charts = [
        layout_pb2.Chart(title="log10 of the layer norms: min, median, max", margin=Margin(series=[band])),
        _multiline("total norm", [tags.TOTAL_NORM, tags.CLIPPED_NORM]),
        _multiline("alerts so far", [tags.ALERT_COUNT, tags.NONFINITE_LAYERS]),
    ]
    content = layout_pb2.Layout(category=[layout_pb2.Category(title="gradients", chart=charts)])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[content.SerializeToString()])
    return Summary.Value(tag="custom_scalars__config__", metadata=_metadata("custom_scalars"), tensor=tensor)


def _multiline(title: str, series: Iterable[str]) -> layout_pb2.Chart:
    return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=list(series)))


def _metadata(plugin: str, content: bytes = b"") -> SummaryMetadata:
    data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return SummaryMetadata(plugin_data=data, data_class=DATA_CLASS_TENSOR)


def _histogram(counts: list[int], low: int, high: int, num: float, total: float, squares: float) -> HistogramProto:
    """Of the buckets from ``low`` to before ``high``: TensorBoard does not always trim empty outer ones."""
    return HistogramProto(
        min=_EDGES[low],
        max=_EDGES[high],
        num=num,
        sum=total,
        sum_squares=squares,
        bucket_limit=_EDGES[low + 1 : high + 1],
        bucket=counts[low:high],
    )
