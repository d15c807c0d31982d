"""Store: the runs of a log directory through TensorBoard's own data server, read again only where they grew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from tensorboard.data import provider

from gradwatch import tags
from gradwatch.tensorboard_plugin.series import Series, described, histogram_series
from gradwatch.tensorboard_plugin.tables import NoNormsError, Tables, tables

ALL = 10**7
"""Asks for every event that the data server kept: fewer would be a random sample."""

BATCH = 2**27
"""Bytes that are read at once, by estimate: an answer of the data server holds at most 256 MB."""

RUNS = 4
"""Runs that are kept in memory, the last used."""

HISTOGRAMS = "histograms"


class Listed(NamedTuple):
    """A run as the list of runs shows it.

    Args:
        last: the last step.
        layers: number of layers.
        verdicts: the series of verdicts, None in a log from before they were written.
    """

    last: int
    layers: int
    verdicts: Series | None


class Store:
    """Reads runs and keeps the last used.

    Args:
        data: TensorBoard's data provider, whatever serves it.
    """

    def __init__(self, data: provider.DataProvider) -> None:
        self._data = data
        self._runs: OrderedDict[tuple[str, str], _Run] = OrderedDict()
        self._lock = Lock()

    def runs(self, context: Any, experiment: str) -> dict[str, Listed]:
        """All runs in which gradwatch wrote norms, by name."""
        listed = self._list(context, experiment, None)
        chosen = provider.RunTagFilter(tags=[tags.VERDICT])
        read = self._read(context, experiment, tags.PLUGIN, chosen)
        found = {}
        for run in sorted(listed):
            norms = [
                (series.max_step, content)
                for tag, series in listed[run].items()
                if tag.startswith(f"{tags.NORMS}/") and (content := described(series.plugin_content)) is not None
            ]
            if norms:
                last, content = max(norms, key=lambda entry: entry[0])
                verdicts = _series({}, read.get(run, {}).get(tags.VERDICT, ()))
                found[run] = Listed(int(last), len(content["layers"]), verdicts if len(verdicts.steps) else None)
        return found

    def tables(self, context: Any, experiment: str, run: str) -> Tables:
        """The run of that name as it is now.

        Raises:
            NoNormsError: when there is none, or no norm in it.
        """
        listed = self._list(context, experiment, run).get(run)
        if not listed:
            raise NoNormsError(f"there is no run {run!r}")
        with self._lock:  # one request reads, those that wait find what it has read
            kept = self._runs.pop((experiment, run), None)
            known = self._updated(context, experiment, run, listed, kept)
            self._runs[experiment, run] = known
            while len(self._runs) > RUNS:
                self._runs.popitem(last=False)
        return known.tables

    def _updated(self, context: Any, experiment: str, run: str, listed: Mapping[str, Any], kept: _Run | None) -> _Run:
        state = {tag: (series.max_step, series.max_wall_time) for tag, series in listed.items()}
        if kept is not None and kept.state == state:
            return kept
        series = {tag: kept.series[tag] for tag in state if tag in kept.series} if kept is not None else {}
        stale = sorted(tag for tag in state if kept is None or kept.state.get(tag) != state[tag])
        batches = [
            provider.RunTagFilter([run], batch) for batch in _batches({tag: _size(listed[tag]) for tag in stale})
        ]
        with ThreadPoolExecutor(2) as pool:  # one waits for the data server while the other unpacks
            for found in pool.map(partial(self._read, context, experiment, tags.PLUGIN), batches):
                for tag, data in found.get(run, {}).items():
                    content = described(listed[tag].plugin_content)
                    if content is not None:
                        series[tag] = _series(content, data)

        def histogram(layer: str) -> Series:
            tag = tags.layer_tag(tags.LAYER_HISTOGRAM, layer)
            chosen = provider.RunTagFilter(runs=[run], tags=[tag])
            data = self._read(context, experiment, HISTOGRAMS, chosen).get(run, {}).get(tag, ())
            return histogram_series((d.step, d.wall_time, d.numpy[:, 1], d.numpy[:, 2]) for d in data)

        return _Run(state, series, tables(series, histogram))

    def _list(self, context: Any, experiment: str, run: str | None) -> Mapping[str, Any]:
        chosen = provider.RunTagFilter(runs=[run]) if run is not None else None
        found: Mapping[str, Any] = self._data.list_tensors(
            context, experiment_id=experiment, plugin_name=tags.PLUGIN, run_tag_filter=chosen
        )
        return found

    def _read(self, context: Any, experiment: str, plugin: str, chosen: provider.RunTagFilter) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._data.read_tensors(
            context, experiment_id=experiment, plugin_name=plugin, downsample=ALL, run_tag_filter=chosen
        )
        return found


@dataclass(frozen=True)
class _Run:
    """What is known of a run: of each tag its last step and wall time when it was read, and what was read."""

    state: Mapping[str, tuple[int, float]]
    series: Mapping[str, Series]
    tables: Tables


def _size(listed: Any) -> int:
    """Of what is under a tag, in bytes, at most; of a text a guess."""
    content = described(listed.plugin_content) or {}
    layers, stats = len(content.get("layers", ())), len(content.get("stats", ()))
    return 4 * layers * stats * tags.chunk_steps(layers) or tags.CHUNK_BYTES // 64


def _batches(sizes: Mapping[str, int]) -> list[list[str]]:
    """The tags in as few lists as hold at most BATCH bytes each, or one tag.

    >>> _batches({"a": BATCH // 2, "b": BATCH // 2, "c": 3 * BATCH, "d": 1})
    [['a', 'b'], ['c'], ['d']]
    """
    batches: list[list[str]] = []
    left = 0
    for tag, size in sizes.items():
        if not batches or size > left:
            batches.append([])
            left = BATCH
        batches[-1].append(tag)
        left -= size
    return batches


def _series(content: dict[str, Any], data: Iterable[Any]) -> Series:
    """Of what is under a tag, all that is as the tag says."""
    if "layers" in content:
        shape = len(content["stats"]), len(content["layers"])
        data = [d for d in data if d.numpy.dtype == np.float32 and d.numpy.size == shape[0] * shape[1]]
        numbers, texts = np.array([d.numpy for d in data], np.float32).reshape(len(data), *shape), ()
    else:
        data = [d for d in data if d.numpy.dtype == object and d.numpy.size == 1]
        numbers, texts = None, tuple(d.numpy.item() for d in data)
    steps, written = np.array([d.step for d in data], np.int64), np.array([d.wall_time for d in data], np.float64)
    return Series(content, steps, written, numbers, texts)
