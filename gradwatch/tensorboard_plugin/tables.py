"""From event files to arrays, without a TensorBoard server."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from gradwatch import tags
from gradwatch.records import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class NormTable:
    """The norms of one run.

    Args:
        layers: names of the L layers; where the set changed, those of the latest step first.
        steps: int64 [T], each step once: of a resumed run, what was written last.
        grad_norm: float64 [T, L], 0 where there was no gradient.
        has_grad: bool [T, L].
    """

    layers: tuple[str, ...]
    steps: IntArray
    grad_norm: FloatArray
    has_grad: BoolArray


def runs(logdir: str | os.PathLike[str]) -> list[Path]:
    """The directories in ``logdir`` that hold event files, sorted."""
    return sorted({path.parent for path in Path(logdir).rglob("*tfevents*") if path.is_file()})


def read_norms(run: str | os.PathLike[str]) -> NormTable:
    """The norms that :class:`gradwatch.sinks.TensorBoard` wrote into the directory ``run``.

    Raises:
        ValueError: when there are none.
    """
    accumulator = EventAccumulator(os.fspath(run), size_guidance={TENSORS: 0})
    accumulator.Reload()
    rows: dict[int, dict[str, float]] = {}
    names: dict[str, None] = {}
    newest: tuple[str, ...] = ()
    written = []
    for tag in accumulator.Tags()["tensors"]:
        if tag.startswith(f"{tags.NORMS}/"):
            layers = tuple(_content(accumulator, tag)["layers"])
            written += [(event.wall_time, event.step, layers, event.tensor_proto) for event in accumulator.Tensors(tag)]
    for _, step, layers, tensor in sorted(written, key=lambda entry: entry[0]):
        rows[step] = dict(zip(layers, make_ndarray(tensor).tolist()))
        if layers != newest:
            newest, names = layers, {**dict.fromkeys(layers), **names}
    if not rows:
        raise ValueError(f"{os.fspath(run)!r} holds no gradient norms of gradwatch")
    steps = sorted(rows)
    table = np.array([[rows[step].get(name, tags.NO_GRADIENT) for name in names] for step in steps])
    has_grad = table != tags.NO_GRADIENT
    return NormTable(tuple(names), np.array(steps, np.int64), np.where(has_grad, table, 0.0), has_grad)


def _content(accumulator: EventAccumulator, tag: str) -> dict[str, Any]:
    metadata = accumulator.SummaryMetadata(tag)
    content: dict[str, Any] = json.loads(metadata.plugin_data.content)
    return content
