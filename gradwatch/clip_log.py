"""ClipLog: how often clipping changed the last steps, and what their norms say of the limit."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from gradwatch.history import MAD_TO_STD, History
from gradwatch.records import Alert, ClipRecord, ClipSummary, FloatArray, Severity

OFTEN, SELDOM = 0.9, 0.5
"""Share of clipped steps from which it is told that the limit is a smaller learning rate, and below which that is news
again."""

ENOUGH = 100
"""Steps from which it is told: as many as it takes to know a 99th percentile at all."""

FEW = 20
"""Steps from which there is a summary."""

ADVISED, FACTOR, Z = 99, 3.0, 4.0
"""Percentile of the norms that is advised as a limit: what is clipped is then the exception. But no more than FACTOR
times the median, or in noisy runs exp(Z robust standard deviations of the log norms) times it: beyond are spikes,
however many."""

COUNTED = {
    "value": "of the elements",
    "per_layer": "of the layers",
    "agc": "of the units",
    "per_group": "of the groups",
}
"""What the policies count that limit more than the total norm."""


class ClipLog:
    """The audit of clipping: takes in the record of each step, the whole and each part of it on its own.

    Args:
        window: steps that count. Of 1,000 a rate is right to within 1% (standard deviation, at 10%).

    Example:
        >>> log = ClipLog()
        >>> for norm in range(1, 101):
        ...     record = log.take(ClipRecord("global_norm", norm, 1.0, 1 / norm, 1.0, clipped=float(norm > 1)))
        >>> record.rate
        0.99
        >>> print(log.summaries()[0].message)
        clipped 99% of 100 steps: max_norm 1 is 0.02 times their median norm 50, so it acts as a smaller learning rate \
and not against spikes; max_norm 99 would clip 1%, with SGD at 0.02 times the learning rate for steps as large as now
    """

    name: ClassVar[str] = "clip_limit"

    def __init__(self, window: int = 1000) -> None:
        self._window = window
        self._tallies: dict[str, _Tally] = {}
        self._latest: dict[str, ClipRecord] = {}
        """The record of the latest step, and those of its parts, each by its path."""
        self._told: set[str] = set()

    def take(self, record: ClipRecord | None) -> ClipRecord | None:
        """Take in what was done at one step. Returns it with the rates, its own and those of its parts."""
        self._latest = {}
        return record and self._take("", record)

    def check(self, history: History) -> list[Alert]:
        """What is new at the latest step: a ``max_norm`` that nearly every step is clipped by."""
        found: list[Alert] = []
        for path, record in self._latest.items():
            if record.policy != "global_norm":
                continue
            if record.rate < SELDOM:
                self._told.discard(path)
            often = record.rate >= OFTEN and len(self._tallies[path].rows) >= ENOUGH
            if often and path not in self._told and history.latest is not None:
                self._told.add(path)
                message = _said(path, record, self._tallies[path])
                found.append(Alert(history.latest.step, self.name, None, Severity.INFO, record.rate, OFTEN, message))
        return found

    def summaries(self) -> tuple[ClipSummary, ...]:
        """Of the latest step's policy and of its parts, where there were steps enough."""
        known = [(path, record, self._tallies[path]) for path, record in self._latest.items()]
        return tuple(
            ClipSummary(
                policy=record.policy,
                part=path,
                steps=len(tally.rows),
                rate=record.rate,
                share=tally.share(),
                median_norm=float(np.median(norms)) if len(norms := tally.norms()) else math.nan,
                threshold=record.threshold,
                message=_said(path, record, tally),
            )
            for path, record, tally in known
            if len(tally.rows) >= FEW
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain types and arrays that :meth:`load_state_dict` takes back."""
        return {"tallies": {path: np.array(t.rows) for path, t in self._tallies.items()}, "told": sorted(self._told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; of a longer window the latest steps are kept."""
        self._latest, self._told = {}, set(state["told"])
        self._tallies = {
            path: _Tally(self._window, np.asarray(rows).tolist()) for path, rows in state["tallies"].items()
        }

    def _take(self, path: str, record: ClipRecord) -> ClipRecord:
        tally = self._tallies.get(path)
        if tally is None:
            tally = self._tallies[path] = _Tally(self._window)
        tally.add(record.norm_before, _clipped(record))
        self._latest[path] = record  # keeps the whole before its parts
        parts = tuple([self._take(name, part) for name, part in _named_parts(path, record)])
        r = record
        self._latest[path] = ClipRecord(
            r.policy, r.norm_before, r.norm_after, r.coefficient, r.threshold, r.group, r.clipped, parts, tally.rate()
        )
        return self._latest[path]


class _Tally:
    """Of the last steps the norm before clipping and the share of it that was clipped, NaN where that is not known."""

    def __init__(self, window: int, rows: Iterable[tuple[float, float]] = ()) -> None:
        self.rows: deque[tuple[float, float]] = deque(maxlen=window)
        self._clipped = self._unknown = 0
        for row in rows:
            self.add(*row)

    def add(self, norm: float, clipped: float) -> None:
        if len(self.rows) == self.rows.maxlen:
            self._clipped -= self.rows[0][1] > 0
            self._unknown -= math.isnan(self.rows[0][1])
        self._clipped += clipped > 0
        self._unknown += math.isnan(clipped)
        self.rows.append((norm, clipped))

    def rate(self) -> float:
        """Of the steps the share of which anything was clipped; NaN where of any it is not known."""
        return self._clipped / len(self.rows) if self.rows and not self._unknown else math.nan

    def share(self) -> float:
        """The mean of what was clipped of each step."""
        return float(np.mean([clipped for _, clipped in self.rows]))

    def norms(self) -> FloatArray:
        """Those that say what is normal."""
        norms = np.array([norm for norm, _ in self.rows])
        counting: FloatArray = norms[(norms > 0) & np.isfinite(norms)]
        return counting


def _named_parts(path: str, record: ClipRecord) -> Iterator[tuple[str, ClipRecord]]:
    """The parts of ``record`` with the path of each: its group, else its policy, numbered where it repeats."""
    seen: Counter[str] = Counter()
    for part in record.parts:
        name = part.group or part.policy
        seen[name] += 1
        numbered = name if seen[name] == 1 else f"{name} {seen[name]}"
        yield f"{path}/{numbered}" if path else numbered, part


def _clipped(record: ClipRecord) -> float:
    """The share that was clipped; of a policy that does not tell, 1 where its factor is below 1."""
    if not math.isnan(record.clipped):
        return record.clipped
    return math.nan if math.isnan(record.coefficient) else float(record.coefficient < 1)


def _said(path: str, record: ClipRecord, tally: _Tally) -> str:
    """One sentence with the numbers in it.

    >>> tally = _Tally(1000, [(2.0, 0.0)] * 30)
    >>> _said("encoder.*", ClipRecord("global_norm", 2.0, 2.0, 1.0, 8.0, rate=0.0), tally)
    'encoder.*: clipped none of 30 steps: max_norm 8 is 4 times their largest norm 2'
    >>> _said("", ClipRecord("skip_spike", 2.0, 2.0, 1.0, 8.0, rate=0.0), tally)
    'skipped none of 30 steps'
    """
    done = "skipped" if record.policy.startswith("skip") else "clipped"
    often = "an unknown share" if math.isnan(record.rate) else f"{_percent(record.rate)}" if record.rate else "none"
    words = f"{path and f'{path}: '}{done} {often} of {len(tally.rows):,} steps"
    if record.policy in COUNTED and record.rate > 0:
        words += f", {_percent(tally.share())} {COUNTED[record.policy]}"
    norms = tally.norms()
    return words + _of_limit(record, norms) if record.policy == "global_norm" and len(norms) else words


def _of_limit(record: ClipRecord, norms: FloatArray) -> str:
    """How a limit of the total norm that the user has set compares with the norms."""
    limit, median, largest = record.threshold, float(np.median(norms)), float(norms.max())
    if record.rate == 0:
        return f": max_norm {limit:.3g} is {limit / largest:.2g} times their largest norm {largest:.2g}"
    words = f": max_norm {limit:.3g} is {limit / median:.2g} times their median norm {median:.2g}"
    if record.rate < SELDOM:
        return words
    often = record.rate >= OFTEN
    if often:
        words += ", so it acts as a smaller learning rate and not against spikes"
    if len(norms) < ENOUGH:
        return words
    logs = np.log(norms)
    spread = MAD_TO_STD * float(np.median(np.abs(logs - np.median(logs))))
    normal = median * max(FACTOR, math.exp(min(Z * spread, 300.0)))
    better = float(f"{min(float(np.percentile(norms, ADVISED)), normal):.2g}")
    words += f"; max_norm {better:g} would clip {_percent(float(np.mean(norms > better)))}"
    # The median step is as long as the limit now, and would be as long as the median norm.
    return (
        f"{words}, with SGD at {limit / median:.2g} times the learning rate for steps as large as now"
        if often
        else words
    )


def _percent(share: float) -> str:
    """
    >>> _percent(0.97), _percent(0.004), _percent(0.00001)
    ('97%', '0.4%', '0.001%')
    """
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{100 * share:.1g}%"
