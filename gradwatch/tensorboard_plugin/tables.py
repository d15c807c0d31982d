"""Tables: one run as arrays, made from the series that were written, wherever they were read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gradwatch import tags
from gradwatch.clip_log import ClipLog
from gradwatch.records import Alert, ClipRecord, Diagnosis, FloatArray, IntArray, Report, Severity, StepStats
from gradwatch.tensorboard_plugin.events import RunEvents
from gradwatch.tensorboard_plugin.series import Float32Array, Series, Standing

STRETCH = 4096
"""Rows that are worked on at once: what fits a processor's cache is read several times at no cost."""

LATEST = 1000
"""Steps that the words on clipping are about, as ``monitor.report()`` has them."""


class NoNormsError(ValueError):
    """There is no gradient norm where one was looked for."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A statistic of every layer at some steps.

    Args:
        steps: int64 [T], ascending.
        values: float32 [T, L], NaN where a layer had none.
    """

    steps: IntArray
    values: Float32Array


@dataclass(frozen=True, eq=False)
class Norms:
    """The gradient norm of every layer at every recorded step.

    Args:
        layers: names of the L layers, input first; where the set changed, all there ever were.
        steps: int64 [T], ascending, each once.
        parts: float32 [t, L] one after the other, ``tags.NO_GRADIENT`` where there was none.
        total: float64 [T], the norm over all layers.
    """

    layers: tuple[str, ...]
    steps: IntArray
    parts: tuple[Float32Array, ...]
    total: FloatArray

    def stretches(self, begin: int, end: int) -> Iterator[tuple[int, Float32Array]]:
        """The rows from ``begin`` to before ``end``, a stretch at a time: place of its first, float32 [t, L]."""
        at = 0
        for part in self.parts:
            first, last = max(begin - at, 0), min(end - at, len(part))
            for i in range(first, last, STRETCH):
                yield at + i, part[i : min(i + STRETCH, last)]
            at += len(part)

    def row(self, place: int) -> Float32Array:
        """float32 [L], the norms at the step of that place."""
        _, rows = next(self.stretches(place, place + 1))
        row: Float32Array = rows[0]
        return row

    def column(self, layer: str, begin: int, end: int) -> Float32Array:
        """float32 [end - begin], the norms of one layer."""
        i = self.layers.index(layer)
        return np.concatenate([rows[:, i] for _, rows in self.stretches(begin, end)])


@dataclass(frozen=True, eq=False)
class Clips:
    """What was clipped.

    Args:
        policy: name of the policy, and after a blank the group of parameters that it was for.
        steps: int64 [T], ascending.
        numbers: float32 [T, 5], the ``tags.CLIP_NUMBERS`` of all gradients together.
        parts: the same of each group or policy of a chain.
    """

    policy: str
    steps: IntArray
    numbers: Float32Array
    parts: tuple[Clips, ...] = ()

    def of(self, name: str) -> Float32Array:
        """float32 [T], one of the numbers."""
        return self.numbers[:, tags.CLIP_NUMBERS.index(name)]

    def latest(self, steps: int) -> list[ClipRecord]:
        """The records of the last so many steps."""
        found = map(self.at, self.steps[-steps:].tolist())
        return [record for record in found if record is not None]

    def at(self, step: int) -> ClipRecord | None:
        """The record of ``step``."""
        place = int(np.searchsorted(self.steps, step))
        if place == len(self.steps) or self.steps[place] != step:
            return None
        numbers = dict(zip(tags.CLIP_NUMBERS, self.numbers[place].tolist()))
        policy, _, group = self.policy.partition(" ")
        parts = (part.at(step) for part in self.parts)
        return ClipRecord(policy, **numbers, group=group, parts=tuple(part for part in parts if part is not None))


class Said(NamedTuple):
    """What was said of a run.

    Args:
        verdict: one sentence.
        severity: of the verdict.
        captured: whether gradients were measured before or after clipping.
        diagnoses: the causes found, most confident first.
    """

    verdict: str = "no verdict was recorded"
    severity: Severity = Severity.INFO
    captured: str = ""
    diagnoses: tuple[Diagnosis, ...] = ()


@dataclass(frozen=True, eq=False)
class Tables:
    """One run.

    Args:
        norms: of every step.
        sampled: by name, statistics of sampled steps.
        clips: None without a clip policy.
        alerts: oldest first.
        said: the verdict and its causes.
        profiles: step and JSON of each backward profile.
        histogram: of a layer; a series of counts [T, 1, buckets].
        notes: what is wrong with the record, in sentences.
    """

    norms: Norms
    sampled: Mapping[str, Matrix]
    clips: Clips | None
    alerts: tuple[Alert, ...]
    said: Said
    profiles: tuple[tuple[int, bytes], ...]
    histogram: Callable[[str], Series]
    notes: tuple[str, ...] = ()

    def stats(self, place: int) -> StepStats:
        """What was measured at the step of that place."""
        norms, step = self.norms.row(place).astype(np.float64), int(self.norms.steps[place])
        has_grad, total = norms != tags.NO_GRADIENT, float(self.norms.total[place])
        return StepStats(
            step, self.norms.layers, np.where(has_grad, norms, 0.0), has_grad, total, captured=self.said.captured
        )

    @cached_property
    def report(self) -> Report:
        """What is known at the last step, as ``monitor.report()`` has it."""
        stats = self.stats(len(self.norms.steps) - 1)
        verdict, severity, _, diagnoses = self.said
        clip, log = None, ClipLog()
        for record in self.clips.latest(LATEST) if self.clips is not None else ():
            clip = log.take(record)
        return Report(verdict, severity, self.alerts, diagnoses, stats, clip, clipping=log.summaries())


def read(directory: str | os.PathLike[str]) -> Tables:
    """The run that :class:`gradwatch.sinks.TensorBoard` wrote into ``directory``.

    Raises:
        NoNormsError: when there are no gradient norms in it.
        OSError: when a file cannot be read.
    """
    events = RunEvents(directory)
    try:
        return tables(events.series, events.histogram, tuple(events.notes))
    except NoNormsError as error:
        raise NoNormsError(f"{os.fspath(directory)!r} holds {error}") from None


def tables(series: Mapping[str, Series], histogram: Callable[[str], Series], notes: tuple[str, ...] = ()) -> Tables:
    """What ``series``, by their tags, say of a run.

    Raises:
        NoNormsError: when there are no norms among them.
    """
    norms = _under(tags.NORMS, series)
    if not norms:
        raise NoNormsError("no gradient norms of gradwatch")
    standing = Standing((s.steps, s.written) for s in norms)
    found = _norms([s.only(standing) for s in norms])
    sampled: dict[str, Matrix] = {}
    for prefix in (tags.SAMPLED, tags.UPDATE_RATIO):
        sampled.update(_sampled([s.only(standing) for s in _under(prefix, series)], found.layers))
    verdicts = series[tags.VERDICT].only(standing) if tags.VERDICT in series else None
    return Tables(
        found,
        sampled,
        _clips([s.only(standing) for s in _under(tags.CLIP, series)]),
        _alerts(_under(tags.ALERT_LOG, series), standing),
        _said(verdicts.texts[i] for i in np.argsort(verdicts.written, kind="stable")) if verdicts else Said(),
        _profiles([s.only(standing) for s in _under(tags.PROFILE, series)]),
        lambda layer: histogram(layer).only(standing),
        notes,
    )


def merged(sets: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """All names of several sets of layers, in the order of depth: of a set's own names each after the one before it.

    >>> merged([["fc1", "fc3", "head"], ["fc1", "fc2", "fc3"]])
    ('fc1', 'fc2', 'fc3', 'head')
    """
    names = list(sets[0]) if sets else []
    known = set(names)
    for layers in sets[1:]:
        at = 0
        for name in layers if not known.issuperset(layers) else ():
            if name in known:
                at = names.index(name) + 1
            else:
                names.insert(at, name)
                known.add(name)
                at += 1
    return tuple(names)


def _under(prefix: str, series: Mapping[str, Series]) -> list[Series]:
    return [series[tag] for tag in sorted(series) if tag == prefix or tag.startswith(f"{prefix}/")]


def _norms(series: Sequence[Series]) -> Norms:
    series = sorted((s for s in series if len(s.steps)), key=lambda s: (s.steps[0], s.steps[-1]))
    newest_first = sorted(series, key=lambda s: -int(s.steps[-1]))
    layers = merged([*dict.fromkeys(s.layers for s in newest_first)])
    steps, total = (np.concatenate([getattr(s, name) for s in series]) for name in ("steps", "total"))
    order = np.argsort(steps, kind="stable")
    if all(s.layers == layers for s in series) and (np.diff(steps) > 0).all():
        parts = tuple(s.row("grad_norm") for s in series)  # as they are: the arrays may be large
    else:
        parts = (_spread(series, "grad_norm", layers, tags.NO_GRADIENT)[order],)
    return Norms(layers, steps[order], parts, total[order])


def _spread(series: Sequence[Series], stat: str, layers: Sequence[str], missing: float) -> Float32Array:
    """float32 [T, L], the rows of all series one after the other, each value under its layer."""
    places = {name: i for i, name in enumerate(layers)}
    spread = np.full((sum(len(s.steps) for s in series), len(layers)), missing, np.float32)
    at = 0
    for s in series:
        spread[at : at + len(s.steps), [places[name] for name in s.layers]] = s.row(stat)
        at += len(s.steps)
    return spread


def _sampled(series: Sequence[Series], layers: Sequence[str]) -> dict[str, Matrix]:
    series = [s for s in series if len(s.steps) and set(s.layers) <= set(layers)]
    if not series:
        return {}
    steps = np.concatenate([s.steps for s in series])
    order = np.argsort(steps, kind="stable")
    shared = [stat for stat in series[-1].stats if all(stat in s.stats for s in series)]
    return {stat: Matrix(steps[order], _spread(series, stat, layers, np.nan)[order]) for stat in shared}


def _clips(series: Sequence[Series]) -> Clips | None:
    series = [s for s in series if len(s.steps) and s.stats == list(tags.CLIP_NUMBERS)]
    if not series:
        return None
    newest = max(series, key=lambda s: int(s.steps[-1]))
    alike = [s for s in series if s.layers == newest.layers]
    parts = [_clip(name, alike, i) for i, name in enumerate(newest.layers)]
    return replace(_clip(newest.layers[0], series, 0), parts=tuple(parts[1:]))


def _clip(policy: str, series: Sequence[Series], column: int) -> Clips:
    steps = np.concatenate([s.steps for s in series])
    numbers = np.concatenate([s.numbers[:, :, column] for s in series if s.numbers is not None])
    order = np.argsort(steps, kind="stable")
    return Clips(policy, steps[order], numbers[order])


def _alerts(blocks: Sequence[Series], standing: Standing) -> tuple[Alert, ...]:
    found: list[Alert] = []
    for block in sorted(blocks, key=lambda s: float(s.written.max())):
        last = int(block.written.argmax())  # repeats all that were in it before
        alerts = [alert for alert in map(_alert, _parsed(block.texts[last], list)) if alert is not None]
        steps = np.array([alert.step for alert in alerts], np.int64)
        stands = standing.of(steps, np.full(len(steps), block.written[last]))
        found += [alert for alert, keep in zip(alerts, stands) if keep]
    return tuple(found)


def _alert(plain: Any) -> Alert | None:
    try:
        layer, severity = plain["layer"], Severity[plain["severity"].upper()]
        numbers = float(plain["value"]), float(plain["threshold"])
        message, follows, layers = str(plain["message"]), str(plain["follows"]), tuple(map(str, plain["layers"]))
        layer = None if layer is None else str(layer)
        return Alert(int(plain["step"]), str(plain["rule"]), layer, severity, *numbers, message, follows, layers)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def last_said(verdicts: Series) -> Said:
    """The last of the verdicts."""
    return _said([verdicts.texts[int(verdicts.written.argmax())]])


def _said(texts: Iterable[bytes]) -> Said:
    """The last verdict, and all causes: the last verdict of a run has those so far, since it was resumed."""
    found, causes = Said(), {}
    for text in texts:
        plain = _parsed(text, dict)
        try:
            found = Said(str(plain["verdict"]), Severity[plain["severity"].upper()], str(plain["captured"]))
            causes[str(plain["began"])] = {d["cause"]: _diagnosis(d) for d in plain["diagnoses"]}
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    latest = {cause: diagnosis for one in causes.values() for cause, diagnosis in one.items()}
    return found._replace(diagnoses=tuple(sorted(latest.values(), key=lambda d: -d.confidence)))


def _diagnosis(plain: Mapping[str, Any]) -> Diagnosis:
    layers, evidence = tuple(map(str, plain["layers"])), tuple(map(str, plain["evidence"]))
    words = str(plain["remedy"]), str(plain.get("change", ""))
    return Diagnosis(str(plain["cause"]), float(plain["confidence"]), layers, evidence, *words)


def _profiles(series: Sequence[Series]) -> tuple[tuple[int, bytes], ...]:
    return tuple(sorted((int(step), text) for s in series for step, text in zip(s.steps, s.texts)))


def _parsed(text: bytes, kind: type) -> Any:
    """The JSON in ``text``, an empty ``kind`` where it is none or another."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, kind) else kind()
