"""What the Gradients tab and the HTML report show: pure functions from tables to JSON."""

from __future__ import annotations

import base64
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwatch import tags
from gradwatch.records import Alert, ClipRecord, FloatArray, IntArray, Severity, to_plain
from gradwatch.tensorboard_plugin.pooling import edges, pool
from gradwatch.tensorboard_plugin.series import Float32Array, Series
from gradwatch.tensorboard_plugin.tables import Clips, Norms, Tables, last_said

MAX_BYTES = 2_000_000
"""Of an answer; there are as few columns as that takes."""
MAX_CELLS = 4096
"""Columns or rows at most, more than a screen has pixels."""
MAX_ALERT_BYTES = 400_000
"""Of the alerts in an answer: the worst, and of those the first."""

View = dict[str, Any]

WORDS = frozenset(
    ("rule", "layer", "layers", "message", "follows", "policy", "group", "kind", "operation", "name", "path", "stacked")
    + ("where", "module", "notes", "towers")
)
"""Keys of what is never a number: a layer may be called "nan"."""


class NotRecordedError(ValueError):
    """What was asked for is not in the record, in a sentence."""


def run(name: str, last: int, layers: int, verdicts: Series | None) -> View:
    """A run as the list of runs shows it; its first step is known from where its first verdict was said."""
    said = last_said(verdicts) if verdicts is not None else None
    return {
        "name": name,
        "first": int(verdicts.steps.min()) if verdicts is not None else None,
        "last": last,
        "layers": layers,
        "severity": said.severity.name.lower() if said else None,
        "verdict": said.verdict if said else None,
    }


def overview(
    tables: Tables,
    lo: int | None = None,
    hi: int | None = None,
    columns: int = 1000,
    rows: int = 1000,
    least: bool = True,
    match: str = "",
) -> View:
    """Every layer whose name holds ``match`` over the steps from ``lo`` to ``hi``, in at most so many columns and rows.

    The alerts are those of the whole run: what began before these steps may still be going on in them.

    Raises:
        NotRecordedError: when no step was recorded there.
    """
    norms = tables.norms
    begin, end = _window(norms, lo, hi)
    kept = [i for i, layer in enumerate(norms.layers) if match.lower() in layer.lower()]
    names = [norms.layers[i] for i in kept]
    groups = edges(len(kept), min(rows, MAX_CELLS))
    view: View = {
        "layers": _names(names, groups),
        "names": names,
        "counts": np.diff([*groups, len(kept)]).tolist(),
        "all_layers": len(norms.layers),
        "lo": int(norms.steps[begin]),
        "hi": int(norms.steps[end - 1]),
        "alerts": _shown(tables.alerts),
        "probes": [step for step, _ in tables.profiles],
        "rows_read": end - begin,
    }
    cell = 12 if least else 7  # bytes in base64: a mark, and one or two numbers
    fits = (MAX_BYTES - len(json.dumps(view))) // (cell * len(groups) + 80)
    starts = edges(end - begin, max(min(columns, MAX_CELLS, fits), 1), begin)
    pooled = pool(norms, starts, end).of_layers(kept).by_layers(groups)
    return {
        **view,
        **_columns(norms, starts, end),
        "norm": array(_log10(pooled.largest.T)),
        **({"least": array(_log10(pooled.least.T))} if least else {}),
        "marks": array(pooled.marks.T),
        "total": _total(norms, starts, end),
        "clip": _clip_columns(tables.clips, norms, starts, end) if tables.clips is not None else None,
    }


def step(tables: Tables, step: int) -> View:
    """Every layer at the recorded step nearest to ``step``."""
    norms = tables.norms
    place = _nearest(norms.steps, step)
    found, row = int(norms.steps[place]), norms.row(place)
    view: View = {
        "step": found,
        "layers": list(norms.layers),
        "norm": _numbers(_log10(row)),
        "state": [_state(norm) for norm in row.tolist()],
        "total": _number(norms.total[place]),
        "clip": _clip_record(tables.clips.at(found)) if tables.clips is not None else None,
        "alerts": _shown(alert for alert in tables.alerts if alert.step == found),
        "sampled_step": None,
    }
    for name in ("max_abs", "zero_fraction", "nonfinite", "param_norm", "update_ratio"):
        view[name] = None
        if name in tables.sampled:
            matrix = tables.sampled[name]
            at = _at_or_before(matrix.steps, found)
            view[name] = _numbers(matrix.values[at])
            if name != "update_ratio":
                view["sampled_step"] = int(matrix.steps[at])
    return view


def layer(tables: Tables, layer: str, lo: int | None = None, hi: int | None = None, columns: int = 1000) -> View:
    """One layer over the steps from ``lo`` to ``hi``.

    Raises:
        NotRecordedError: when there is no such layer, or no step was recorded there.
    """
    if layer not in tables.norms.layers:
        raise NotRecordedError(f"layer: there is no layer {layer!r} in this run")
    begin, end = _window(tables.norms, lo, hi)
    steps = tables.norms.steps[begin:end]
    column = tables.norms.column(layer, begin, end)
    alone = Norms((layer,), steps, (column[:, None],), tables.norms.total[begin:end])
    starts = edges(len(steps), min(columns, MAX_CELLS))
    pooled = pool(alone, starts, len(steps))
    alerts = [alert for alert in tables.alerts if layer in alert.concerned]
    return {
        "layer": layer,
        **_columns(alone, starts, len(steps)),
        "largest": array(_log10(pooled.largest[:, 0])),
        "least": array(_log10(pooled.least[:, 0])),
        "median": array(_log10(_medians(column, starts))),
        "marks": array(pooled.marks[:, 0]),
        "band": _band(alerts),
        "update_ratio": _update_ratio(tables, layer, int(steps[0]), int(steps[-1])),
        "histogram": _histogram(tables, layer, int(steps[0]), int(steps[-1])),
        "alerts": _shown(alerts),
    }


def report(tables: Tables) -> View:
    """The verdict, why, evidence and what to do next; and the run in a few numbers."""
    found = tables.report
    return {
        "verdict": found.verdict,
        "severity": found.severity.name.lower(),
        "sections": [[title, lines] for title, lines in found.sections()],
        "first": int(tables.norms.steps[0]),
        "last": int(tables.norms.steps[-1]),
        "steps": len(tables.norms.steps),
        "layers": len(tables.norms.layers),
        "notes": list(tables.notes),
    }


def profile(tables: Tables, step: int) -> View:
    """The backward profile taken nearest at or before ``step``; else the first after it.

    Raises:
        NotRecordedError: when none was taken.
    """
    if not tables.profiles:
        raise NotRecordedError("no backward pass of this run was probed")
    place = _at_or_before(np.array([at for at, _ in tables.profiles]), step)
    at, text = tables.profiles[place]
    by_kind: dict[str, list[float | None]] = defaultdict(list)
    try:
        plain: View = _finite(json.loads(text))
        for segment in plain["segments"]:
            gain = segment["gain"]
            segment["log_gain"] = math.log(gain) if gain is not None and gain > 0 else None
            by_kind[segment["kind"]].append(segment["log_gain"])
    except (KeyError, TypeError, ValueError) as error:
        raise NotRecordedError(f"the profile of step {at} cannot be read") from error
    return {**plain, "step": at, "by_kind": {kind: _sum(gains) for kind, gains in by_kind.items()}}


def array(values: NDArray[Any]) -> dict[str, str]:
    """``values`` as plotly.js reads them: bytes in base64, far smaller and sooner parsed than a list of numbers.

    >>> array(np.array([[1, 2]], np.uint8))
    {'dtype': 'u1', 'bdata': 'AQI=', 'shape': '1,2'}
    """
    kind = {"f": "f4", "i": "i4", "u": "u1"}[values.dtype.kind]
    data = base64.b64encode(np.ascontiguousarray(values, f"<{kind}").tobytes()).decode()
    return {"dtype": kind, "bdata": data, "shape": ",".join(map(str, values.shape))}


def _window(norms: Norms, lo: int | None, hi: int | None) -> tuple[int, int]:
    """The rows of the steps from ``lo`` to ``hi``."""
    begin = 0 if lo is None else int(np.searchsorted(norms.steps, lo))
    end = len(norms.steps) if hi is None else int(np.searchsorted(norms.steps, hi, side="right"))
    if begin >= end:
        raise NotRecordedError(
            f"no step was recorded from {'the first' if lo is None else lo} to {'the last' if hi is None else hi}"
        )
    return begin, end


def _columns(norms: Norms, starts: IntArray, end: int) -> View:
    ends = np.append(starts[1:], end) - 1
    return {"steps": norms.steps[starts].tolist(), "ends": norms.steps[ends].tolist()}


def _names(layers: Sequence[str], groups: IntArray) -> list[str]:
    after = np.append(groups[1:], len(layers))
    return [layers[a] if b - a == 1 else f"{layers[a]} ... {layers[b - 1]} ({b - a})" for a, b in zip(groups, after)]


def _total(norms: Norms, starts: IntArray, end: int) -> View:
    total = norms.total[starts[0] : end]
    plain, at = (total > 0) & np.isfinite(total), starts - starts[0]
    return {
        "largest": array(_log10(np.maximum.reduceat(np.where(plain, total, 0.0), at))),
        "least": array(_log10(np.minimum.reduceat(np.where(plain, total, np.inf), at))),
    }


def _clip_columns(clips: Clips, norms: Norms, starts: IntArray, end: int) -> View:
    """What was clipped, in the same columns; NaN where nothing was recorded."""
    limits = np.searchsorted(clips.steps, [*norms.steps[starts], norms.steps[end - 1] + 1])
    filled = np.flatnonzero(np.diff(limits))
    columns: dict[str, FloatArray] = {}
    for name, values, reduce in (
        ("coefficient", clips.of("coefficient"), np.fmin),
        ("threshold", _log10(clips.of("threshold")), np.fmin),
        ("clipped", _was_clipped(clips), np.add),
    ):
        columns[name] = np.full(len(starts), np.nan)
        if len(filled):
            columns[name][filled] = reduce.reduceat(values[: limits[-1]], limits[filled])
    columns["clipped"] /= np.maximum(np.diff(limits), 1)
    rate = _was_clipped(clips)[limits[0] : limits[-1]]
    return {
        "policy": clips.policy,
        "rate": _number(rate.mean()) if len(rate) else None,
        **{name: array(values) for name, values in columns.items()},
    }


def _was_clipped(clips: Clips) -> FloatArray:
    """float64 [T], 1 of a step at which anything was beyond the limit."""
    clipped, coefficient = clips.of("clipped"), clips.of("coefficient")
    return np.where(np.isnan(clipped), coefficient < 1, clipped > 0).astype(np.float64)


def _clip_record(record: ClipRecord | None) -> View | None:
    return _finite(to_plain(record)) if record is not None else None


def _medians(column: Float32Array, starts: IntArray) -> Float32Array:
    """float32 [C], the median of the norms in each column that are finite and above 0; NaN where there are none."""
    parts = np.split(column, starts[1:])
    return np.array([np.median(p) if len(p := part[(part > 0) & (part < np.inf)]) else np.nan for part in parts], "<f4")


def _band(alerts: Iterable[Alert]) -> View:
    """The last limits that alerts of the layer carried, where those are limits of the norm."""
    band: View = {"low": None, "high": None}
    for alert in alerts:
        side = "low" if alert.value < alert.threshold else "high"
        if alert.severity > Severity.INFO and (alert.rule, side) in (("vanishing", "low"), ("exploding", "high")):
            band[side] = _number(_log10(np.array([alert.threshold]))[0])
    return band


def _update_ratio(tables: Tables, layer: str, lo: int, hi: int) -> View | None:
    if "update_ratio" not in tables.sampled:
        return None
    matrix = tables.sampled["update_ratio"]
    values = matrix.values[:, tables.norms.layers.index(layer)]
    keep = (matrix.steps >= lo) & (matrix.steps <= hi) & np.isfinite(values)
    return {"steps": matrix.steps[keep].tolist(), "values": _numbers(values[keep])}


def _histogram(tables: Tables, layer: str, lo: int, hi: int) -> View | None:
    series = tables.histogram(layer)
    if series.numbers is None or not len(series.steps):
        return None
    order = np.argsort(series.steps, kind="stable")
    order = order[(series.steps[order] >= lo) & (series.steps[order] <= hi)]
    counts = series.numbers[order, 0]
    filled = np.flatnonzero(counts.any(axis=0))
    if not len(filled):
        return None
    shown = slice(filled[0], filled[-1] + 1)
    return {
        "steps": series.steps[order].tolist(),
        "edges": tags.HISTOGRAM_EDGES[filled[0] : filled[-1] + 2].tolist(),
        "counts": array(counts[:, shown]),
    }


def _shown(alerts: Iterable[Alert]) -> list[View]:
    """All, or of too many the worst, and of those the first."""
    found, size = [], 0
    for i, alert in sorted(enumerate(alerts), key=lambda entry: (-entry[1].severity, entry[0])):
        view: View = _finite(to_plain(alert))
        size += len(json.dumps(view))
        if size > MAX_ALERT_BYTES:
            break
        found.append((i, view))
    return [view for _, view in sorted(found, key=lambda entry: entry[0])]


def _nearest(steps: IntArray, step: int) -> int:
    after = min(int(np.searchsorted(steps, step)), len(steps) - 1)
    before = max(after - 1, 0)
    return before if abs(int(steps[before]) - step) <= abs(int(steps[after]) - step) else after


def _at_or_before(steps: IntArray, step: int) -> int:
    return max(int(np.searchsorted(steps, step, side="right")) - 1, 0)


def _log10(values: NDArray[Any]) -> FloatArray:
    """Of what is finite and above 0; NaN of all else."""
    with np.errstate(invalid="ignore"):
        plain = (values > 0) & (values < np.inf)
    logs: FloatArray = np.log10(values, out=np.full(values.shape, np.nan), where=plain, dtype=np.float64)
    return logs


def _state(norm: float) -> str:
    if math.isnan(norm):
        return "nan"
    return {tags.NO_GRADIENT: "none", 0.0: "zero", math.inf: "inf"}.get(norm, "ok")


def _numbers(values: NDArray[Any]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _sum(numbers: Iterable[float | None]) -> float | None:
    found = [*numbers]
    return None if None in found else math.fsum(number for number in found if number is not None)


def _finite(plain: Any) -> Any:
    """JSON in which a number that is not finite, a word in the record, is null. What is words anyway stays."""
    if isinstance(plain, Mapping):
        return {key: value if key in WORDS else _finite(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_finite(value) for value in plain]
    return None if isinstance(plain, str) and plain in ("nan", "inf", "-inf") else plain
