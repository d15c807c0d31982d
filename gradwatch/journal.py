"""Journal: everything right of the wall. Numbers that have arrived become history, alerts, causes and reports."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing import util
from typing import TYPE_CHECKING, Any, NamedTuple

from gradwatch.alert_log import AlertLog
from gradwatch.clip_log import ClipLog
from gradwatch.coming import Coming
from gradwatch.diagnosis.unexplained import unexplained
from gradwatch.faults import DROPPED, Faults, part_of
from gradwatch.history import History
from gradwatch.protocols import Cause, Rule, Sink
from gradwatch.records import Alert, ClipRecord, Diagnosis, Report, Severity, StepStats, from_state, to_state
from gradwatch.rota import Rota
from gradwatch.stacked import are_among
from gradwatch.towers import tower_of
from gradwatch.verdict import judge

if TYPE_CHECKING:
    from gradwatch.arriving import Arriving
    from gradwatch.probe_schedule import Probed, ProbeSchedule
    from gradwatch.profile import BackwardProfile

TOGETHER = 16
"""Short steps that are taken in at once. After a training step the processor's caches hold nothing of what that needs,
which the first of them fetches for the others (docs/benchmarks.md has what it saves)."""

SHORT = 0.025
"""Seconds up to which a step is short: while training goes on, no alert or record of one comes more than 0.4 s late."""

UNLIKE = 3.0
"""Change of the total norm, from one step to the next, by which a step is taken in without delay."""

RECORD = ("the record of a step", "this step is not recorded")
"""What fails, and the consequence."""

FAILED = object()

_open: weakref.WeakSet[Journal] = weakref.WeakSet()
_ends_with: set[int] = set()
"""The processes at whose end every journal is flushed: a fork forgets what its parent had registered."""


class _Sent(NamedTuple):
    """One step that is on its way, or waits to be taken in."""

    arriving: Arriving
    probed: Probed | None
    """What is in no report yet."""
    writes: bool
    """Whether this rank writes."""

    def is_like(self, other: _Sent) -> bool:
        """Whether both have arrived, and of both nothing but the norms of the same gradients is known."""
        alike = self.probed is None and other.probed is None and self.arriving.is_like(other.arriving)
        return alike and self.arriving.copy.ready()


class Journal:
    """Keeps the history of a run, has it judged and explained step by step, and hands the reports to the sinks.

    Steps are taken in in their order, once they have arrived: at once where they are looked at closely, where they take
    long, where the norm is not what it was, and where a sink does not wait; up to TOGETHER others wait for each other.

    Args:
        rules: what to check.
        causes: what to look for when there are alerts.
        sinks: where reports go.
        probes: is told of alerts, and knows what the last probe saw.
        faults: runs what may fail without the rest.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        causes: Iterable[Cause],
        sinks: Iterable[Sink],
        probes: ProbeSchedule,
        faults: Faults,
    ) -> None:
        self.history = History()
        self.log, self._clip_log = AlertLog(), ClipLog()
        self.rules, self.sinks = list(rules), list(sinks)
        self._causes = list(causes)
        self._explained: tuple[Diagnosis, ...] = ()
        """Of alerts that are so old that the history soon forgets them."""
        self._unexplained: list[Alert] = []
        """Those that are not."""
        self._probes, self._faults = probes, faults
        self._last_clip: ClipRecord | None = None
        self._sent: deque[_Sent] = deque()
        self._arrived: deque[tuple[_Sent, StepStats, ClipRecord | None]] = deque()
        """What has been read, and is taken in next."""
        self._rota = Rota(self.rules, faults)
        self._sent_at, self._norm, self._at_once = 0.0, 0.0, False
        self._owner = self._taken_by = 0
        self._belong_here()

    def send(self, arriving: Arriving, probed: Probed | None, writes: bool) -> None:
        """Put one step into the queue."""
        self._belong_here()
        self._sent.append(_Sent(arriving, probed, writes))
        now, norm = time.perf_counter(), arriving.total_norm
        like = self._norm / UNLIKE < norm < self._norm * UNLIKE  # not where it is NaN, as of what is not known yet
        long = now - self._sent_at > SHORT
        hurries = not all(getattr(sink, "may_wait", False) for sink in self.sinks)
        self._sent_at, self._norm = now, norm
        self._at_once |= long or hurries or not like or arriving.looked_at or probed is not None

    def receive(self) -> None:
        """Take in what has arrived, where that is not to wait."""
        if self._at_once or self._waiting >= TOGETHER:
            self.catch_up()

    def catch_up(self) -> None:
        """Take in all that has arrived; nothing while a step is being taken in, by another thread or a sink's doing."""
        self._belong_here()
        if self._lock.locked():
            return
        with self._lock:
            self._taken_by = threading.get_ident()
            while self._arrived or (self._sent and self._sent[0].arriving.copy.ready()):
                self._take_next()

    def flush(self) -> None:
        """Take in every step, also those that are still on their way from the device, whatever one of them raises."""
        self._belong_here()
        if self._lock.locked() and self._taken_by == threading.get_ident():
            return  # a sink's doing, while a step is being taken in
        with self._lock, ExitStack() as stack:
            self._taken_by = threading.get_ident()
            for _ in range(self._waiting):
                stack.callback(self._take_next)

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, which has a lock of its own, and nothing that waits."""
        kept = {key: value for key, value in vars(self).items() if key != "_lock"}
        return {**kept, "_sent": deque(), "_arrived": deque(), "_owner": 0}

    def __del__(self) -> None:
        """Nothing is lost where nobody closes the monitor."""
        with suppress(Exception):
            self.flush()

    def report(self) -> Report:
        """What is known of the steps taken in."""
        verdict, severity = self._judge()
        profile = self._probes.last and self._probes.last.profile
        explained = self._explain_all()
        if severity is Severity.ERROR and self._causes and not explained:
            explained = unexplained(self.log.alerts)
        return Report(
            verdict,
            severity,
            tuple(self.log.alerts),
            explained,
            self.history.latest,
            self._last_clip,
            profile,
            clipping=self._clip_log.summaries(),
        )

    def close(self) -> None:
        """Close every sink, whatever the others raise with ``strict=True``."""
        with ExitStack() as stack:
            for sink in self.sinks:
                part, consequence = part_of("sink", type(sink)), "what it had not written is lost"
                stack.callback(self._faults.run, part, consequence, sink.close, otherwise=None)

    def state_dict(self) -> dict[str, Any]:
        """Arrays and plain types that :meth:`load_state_dict` takes back."""
        return {
            "history": self.history.state_dict(),
            "log": self.log.state_dict(),
            "rules": states(self.rules),
            "clip_log": self._clip_log.state_dict(),
            "explained": [to_state(diagnosis) for diagnosis in self._explained],
            "unexplained": len(self._unexplained),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.history.load_state_dict(state["history"])
        self.log.load_state_dict(state["log"])
        self._clip_log.load_state_dict(state["clip_log"])
        load_states(self.rules, state["rules"])
        self._explained = tuple([from_state(Diagnosis, known) for known in state["explained"]])
        grave = _grave(self.log.alerts)
        self._unexplained = grave[len(grave) - state["unexplained"] :]

    @property
    def _waiting(self) -> int:
        return len(self._sent) + len(self._arrived)

    def _belong_here(self) -> None:
        """What waits in a fork belongs to its parent; at the end of the process that it is in, a journal is flushed."""
        here = os.getpid()
        if here != self._owner:
            self._lock = threading.Lock()
            self._sent.clear()
            self._arrived.clear()
            _open.add(self)
            if here not in _ends_with:
                _ends_with.add(here)
                util.Finalize(None, _flush_all, exitpriority=0)  # atexit knows no processes of multiprocessing
            self._owner = here

    def _take_next(self) -> None:
        if not self._arrived:
            self._read_ahead()
        if self._arrived:
            self._faults.run(*RECORD, self._record, *self._arrived.popleft(), otherwise=None)
        self._at_once = self._at_once and self._waiting > 0

    def _read_ahead(self) -> None:
        """Read the next step and, where nothing but norms is known of it, those after it that are like it."""
        together = [self._sent.popleft()]
        while self._sent and self._sent[0].is_like(together[0]):
            together.append(self._sent.popleft())
        read = [(sent, self._faults.run(*RECORD, self._read, sent, otherwise=None)) for sent in together]
        self._arrived.extend((sent, *found) for sent, found in read if found is not None)
        stats = [stats for _, stats, _ in self._arrived]
        is_plain = all(step.is_plain and not step.skipped for step in stats)
        self._rota.plan(self.history, Coming.of(stats, self.history.count) if stats and is_plain else None)

    def _read(self, sent: _Sent) -> tuple[StepStats, ClipRecord | None]:
        stats, clip = sent.arriving.read()
        before, probed = self.history.latest, sent.probed
        if stats.update_ratio is not None and before is not None and before.skipped:
            stats = replace(stats, update_ratio=None, total_update=None, broken=None)  # what did not step did not move
        if probed is not None and probed.profile.weights:
            stacked = are_among(stats.layers, probed.profile.stacked)
            stats = replace(stats, stacked=stacked, towers=tower_of(stats.layers, probed.profile.towers))
        return stats, clip

    def _record(self, sent: _Sent, stats: StepStats, clip: ClipRecord | None) -> None:
        self._last_clip = self._clip_log.take(clip)
        self.history.append(stats)
        new = self.log.take([*self._rota.check(self.history), (self._clip_log, self._clip_log.check(self.history))])
        grave, probed = _grave(new), sent.probed
        self._probes.consider(grave)
        self._explain_in_time()
        self._unexplained += grave
        if probed is None:
            profile, diagnoses = None, self._diagnose(grave, self._probes.of(grave))
        else:
            profile, diagnoses = probed.profile, self._diagnose([*probed.alerts, *grave], probed.profile)
        sinks = [sink for sink in self.sinks if sent.writes or getattr(sink, "every_rank", False)]
        if sinks:
            verdict, severity = self._judge()
            self._write(sinks, Report(verdict, severity, tuple(new), diagnoses, stats, self._last_clip, profile))

    def _write(self, sinks: Iterable[Sink], report: Report) -> None:
        for sink in sinks:
            part = part_of("sink", type(sink))
            if self._faults.run(part, DROPPED, sink.write, report, otherwise=FAILED) is FAILED:
                self.sinks.remove(sink)
                with suppress(Exception):
                    sink.close()

    def _explain_in_time(self) -> None:
        """Explain alerts before the history forgets what came before them."""
        old = len(self.history) - self.history.window // 2
        if self._unexplained and old >= 0 and self._unexplained[0].step <= self.history.steps[old]:
            self._explained, self._unexplained = self._explain_all(), []

    def _explain_all(self) -> tuple[Diagnosis, ...]:
        """What is known of every alert so far."""
        profile = self._probes.last and self._probes.last.profile
        return _by_confidence([*self._explained, *self._diagnose(self._unexplained, profile)])

    def _judge(self) -> tuple[str, Severity]:
        return judge(self.history, self.log.ongoing(self.rules), self.log.counts, self.log.worst)

    def _diagnose(self, alerts: Sequence[Alert], profile: BackwardProfile | None) -> tuple[Diagnosis, ...]:
        if not alerts:
            return ()
        found: list[Diagnosis] = []
        for cause in list(self._causes):
            given = (self.history, profile, alerts)
            result = self._faults.run(part_of("cause", type(cause)), DROPPED, cause.explain, *given, otherwise=FAILED)
            if result is FAILED:
                self._causes.remove(cause)
            elif isinstance(result, Diagnosis):
                found.append(result)
        return _by_confidence(found)


def _flush_all() -> None:
    for journal in list(_open):
        with suppress(Exception):
            journal.flush()


def states(parts: Iterable[object]) -> dict[str, Any]:
    """What each of ``parts`` that keeps state remembers, by a name of its own: the class, numbered where it repeats."""
    return {key: part.state_dict() for key, part in _stateful(parts)}


def load_states(parts: Iterable[object], state: Mapping[str, Any]) -> None:
    """Have each of ``parts`` continue from what :func:`states` gave."""
    for key, part in _stateful(parts):
        if key in state:
            part.load_state_dict(state[key])


def _stateful(parts: Iterable[object]) -> list[tuple[str, Any]]:
    names: list[str] = []
    found = []
    for part in parts:
        if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
            names.append(type(part).__name__)
            found.append((f"{names[-1]}.{names.count(names[-1]) - 1}", part))
    return found


def _by_confidence(found: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """The most confident first, each cause once."""
    best: dict[str, Diagnosis] = {}
    for diagnosis in sorted(found, key=lambda d: -d.confidence):
        best.setdefault(diagnosis.cause, diagnosis)
    return tuple(best.values())


def _grave(alerts: Iterable[Alert]) -> list[Alert]:
    return [alert for alert in alerts if alert.severity > Severity.INFO]
