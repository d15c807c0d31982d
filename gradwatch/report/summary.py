"""A run in one page of numbers: pure functions from tables to records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gradwatch import tags
from gradwatch.records import Alert, FloatArray, IntArray, Report, Severity
from gradwatch.tensorboard_plugin.pooling import edges, pool
from gradwatch.tensorboard_plugin.series import Float32Array
from gradwatch.tensorboard_plugin.tables import Norms, Tables
from gradwatch.told import Told

SAMPLE = 4096
"""Steps, evenly spread, that a median is taken of."""

TREND = 16
"""Points of a layer's norm over time."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer over the whole run.

    Args:
        name: of the layer.
        median: of the finite norms above 0; NaN where there were none. Like least and largest.
        least: the smallest.
        largest: the largest.
        trend: the largest norm in each of up to TREND stretches of the run.
        states: at how many steps there was "nan", "inf", "zero" or "no gradient", where there were any.
        alerts: how often each rule alerted.
    """

    name: str
    median: float
    least: float
    largest: float
    trend: tuple[float, ...]
    states: Mapping[str, int]
    alerts: Mapping[str, int]


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Args:
        name: as TensorBoard names it.
        report: verdict, why, evidence, next.
        first: the first recorded step.
        last: the last.
        steps: how many were recorded.
        worst: the worst severity of the verdict and of all alerts, those that are over among them.
        layers: input first.
        notes: what is wrong with the files, in sentences.
    """

    name: str
    report: Report
    first: int
    last: int
    steps: int
    worst: Severity
    layers: tuple[LayerSummary, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One layer in two runs.

    Args:
        layer: its name.
        before: median norm in the one run.
        after: in the other.
    """

    layer: str
    before: float
    after: float

    @property
    def factor(self) -> float:
        """How many times as large it is in the other run; NaN where one is not known."""
        return self.after / self.before if self.before > 0 else math.nan


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Args:
        before: the one.
        after: the other.
        changes: of the layers in both, input first.
        only_before: names of the layers that only the one has.
        only_after: that only the other has.
    """

    before: RunSummary
    after: RunSummary
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def summarize(name: str, tables: Tables) -> RunSummary:
    """The run of that name."""
    norms, report = tables.norms, tables.report
    return RunSummary(
        name,
        report,
        int(norms.steps[0]),
        int(norms.steps[-1]),
        len(norms.steps),
        max([report.severity, *(alert.severity for alert in tables.alerts)]),
        _layers(norms, tables.alerts),
        tables.notes,
    )


def compare(before: RunSummary, after: RunSummary) -> Comparison:
    """What changed from one run to the other."""
    known = {layer.name: layer.median for layer in before.layers}
    new = {layer.name: layer.median for layer in after.layers}
    return Comparison(
        before,
        after,
        tuple(Change(name, median, new[name]) for name, median in known.items() if name in new),
        tuple(name for name in known if name not in new),
        tuple(name for name in new if name not in known),
    )


def _layers(norms: Norms, alerts: Iterable[Alert]) -> tuple[LayerSummary, ...]:
    rules: dict[str, Counter[str]] = {name: Counter() for name in norms.layers}
    told = Told()
    for alert in alerts:
        if told.add(alert):
            for name in rules.keys() & alert.concerned:
                rules[name][alert.rule] += 1
    pooled = pool(norms, edges(len(norms.steps), TREND), len(norms.steps))
    trends, least, largest = pooled.largest.T.tolist(), pooled.least.min(axis=0), pooled.largest.max(axis=0)
    medians, states = _medians(norms), _states(norms)
    return tuple(
        LayerSummary(
            name,
            median=float(medians[i]),
            least=float(least[i]) if largest[i] > 0 else math.nan,
            largest=float(largest[i]) if largest[i] > 0 else math.nan,
            trend=tuple(trends[i]),
            states={state: int(counts[i]) for state, counts in states.items() if counts[i]},
            alerts=rules[name],
        )
        for i, name in enumerate(norms.layers)
    )


def _medians(norms: Norms) -> FloatArray:
    """float64 [L]."""
    chosen = edges(len(norms.steps), SAMPLE)
    rows = np.concatenate([rows[chosen[(chosen >= at) & (chosen < at + len(rows))] - at] for at, rows in _all(norms)])
    medians = np.full(len(norms.layers), np.nan)
    for i, column in enumerate(rows.T):
        plain = column[(column > 0) & (column < np.inf)]
        if len(plain):
            medians[i] = np.median(plain.astype(np.float64))
    return medians


def _states(norms: Norms) -> dict[str, IntArray]:
    """By the state's name, at how many steps each layer was in it."""
    values = {"inf": np.inf, "zero": 0.0, "no gradient": tags.NO_GRADIENT}
    counts = {name: np.zeros(len(norms.layers), np.int64) for name in ("nan", *values)}
    for _, rows in _all(norms):
        counts["nan"] += np.isnan(rows).sum(axis=0)
        for name, value in values.items():
            counts[name] += (rows == value).sum(axis=0)
    return counts


def _all(norms: Norms) -> Iterable[tuple[int, Float32Array]]:
    return norms.stretches(0, len(norms.steps))
