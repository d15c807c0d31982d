"""Labels: whether a program is faulty, by what comes of its runs and by what rescues them; never by a gradient."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.statistics import cohens_d, sign_flip_p
from benchmarks.detection.task import Program, Task
from benchmarks.detection.training import train

SEEDS = (0, 1, 2, 3, 4)
"""Matched: each seed is one order of data and one draw of the initial weights, for the program and what is compared."""

RECORDED_SEED = SEEDS[0]
"""The run that detectors are given."""

DEAD_BELOW, OK_FROM = 0.1, 0.8
"""Limits of q."""

SIGNIFICANCE = 0.05
LARGE_ENOUGH = 0.5
"""Least Cohen's d: a medium effect."""

DEAD, DEGRADED, OK, UNCLEAR = "dead", "degraded", "ok", "unclear"
FAULTY, HEALTHY, DROPPED = "faulty", "healthy", "dropped"

LABELS = Path(__file__).with_name("labels.json")


@dataclass(frozen=True)
class Gain:
    """What a run's metric gained over the trivial predictor: nothing, where it is worse or broke down."""

    metric: float
    trivial: float

    @property
    def value(self) -> float:
        return max(0.0, self.metric - self.trivial) if math.isfinite(self.metric) else 0.0


@dataclass(frozen=True)
class Remedy:
    """What one change of a faulty program does.

    Args:
        q: mean over the seeds.
        p: that its runs are better than the faulty ones, seed by seed.
        rescues: q is at least OK_FROM and p below SIGNIFICANCE.
    """

    q: float
    p: float
    rescues: bool


@dataclass(frozen=True)
class Label:
    """What became of a program over all seeds, and what it is called for it.

    q of a run is its gain over the trivial predictor, as a share of the reference: the best gain among the seeds of its
    healthy twin, or of the program itself where it is healthy and has no twin.

    Args:
        label: "faulty", "healthy", or "dropped" with its ``reason``.
        reason: why it was dropped; "" otherwise.
        outcome: "dead", "degraded", "ok" or "unclear".
        q: mean over the seeds.
        q_of_seeds: of each.
        metrics: of each seed; NaN where the run broke down.
        trivial: the trivial predictor's metric, for the first seed.
        reference: the gain that is q = 1.
        p: of the test that the twin, or for a healthy program the run itself against the trivial predictor, is better.
        d: the size of that effect, Cohen's d.
        killed: faulty programs: the twin is better with p < SIGNIFICANCE and d >= LARGE_ENOUGH.
        remedies: by cause.
        fingerprint: of the program's settings.
    """

    label: str
    reason: str
    outcome: str
    q: float
    q_of_seeds: tuple[float, ...]
    metrics: tuple[float, ...]
    trivial: float
    reference: float
    p: float
    d: float
    killed: bool
    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def causes(self) -> tuple[str, ...]:
        """The remedies that rescue it."""
        return tuple(cause for cause, remedy in self.remedies.items() if remedy.rescues)


Gains = Callable[[Mapping[str, Any]], list[Gain]]
"""Changes of a program's settings -> the gain of each seed."""


def label(program: Program, gains: Gains) -> Label:
    """The label of ``program``, from the outcomes of its runs."""
    found = _label_healthy(program, gains) if program.is_healthy else _label_faulty(program, gains)
    return Label(**found, fingerprint=fingerprint(program))


def outcome(q: float, killed: bool) -> str:
    """What a program's mean q amounts to.

    A loss that is certain but small, q >= OK_FROM and killed, is nothing to warn of, nor is it health: it is unclear,
    as is a loss that is not certain.

    >>> outcome(0.05, killed=True), outcome(0.5, killed=True), outcome(0.5, killed=False), outcome(0.9, killed=False)
    ('dead', 'degraded', 'unclear', 'ok')
    """
    if q >= OK_FROM:
        return UNCLEAR if killed else OK
    if not killed:
        return UNCLEAR
    return DEAD if q < DEAD_BELOW else DEGRADED


def _label_faulty(program: Program, gains: Gains) -> dict[str, Any]:
    runs, twins = gains({}), gains(program.twin)
    reference = max(gain.value for gain in twins)
    if reference == 0:
        return _result(runs, reference, UNCLEAR, reason="its healthy twin learns nothing")
    q, q_twin = _shares(runs, reference), _shares(twins, reference)
    p, d = sign_flip_p([t - r for t, r in zip(q_twin, q)]), cohens_d(q_twin, q)
    killed = p < SIGNIFICANCE and d >= LARGE_ENOUGH
    came_of_it = outcome(float(np.mean(q)), killed)
    # What did not fail needs no rescue: its remedies are not run.
    failed = came_of_it in (DEAD, DEGRADED)
    remedies = {cause: _remedy(q, _shares(gains(c), reference)) for cause, c in program.remedies.items() if failed}
    reason = ""
    if not failed:
        reason = f"it does not fail: q = {np.mean(q):.2f}, {'' if killed else 'not '}killed"
    elif q[SEEDS.index(RECORDED_SEED)] >= OK_FROM:
        reason = f"the recorded run does not fail: q = {q[SEEDS.index(RECORDED_SEED)]:.2f}"
    elif np.mean(q_twin) < OK_FROM:
        reason = f"its healthy twin is not reliable: q = {np.mean(q_twin):.2f}"
    elif not any(remedy.rescues for remedy in remedies.values()):
        best = max(remedies, key=lambda cause: remedies[cause].q, default="")
        reason = f"no remedy rescues it; the best is {best} with q = {remedies[best].q:.2f}" if best else "no remedy"
    return _result(runs, reference, came_of_it, reason, FAULTY, q=q, p=p, d=d, killed=killed, remedies=remedies)


def _label_healthy(program: Program, gains: Gains) -> dict[str, Any]:
    runs = gains({})
    values = [gain.value for gain in runs]
    reference = max(gain.value for gain in (gains(program.twin) if program.twin else runs))
    if reference == 0:
        return _result(runs, reference, DEAD, reason="it learns nothing")
    q = _shares(runs, reference)
    p, d = sign_flip_p(values), cohens_d(values, [0.0] * len(values))
    reason = ""
    if p >= SIGNIFICANCE or d < LARGE_ENOUGH:
        reason = f"it is not certain to beat the trivial predictor: p = {p:.2f}, d = {d:.1f}"
    elif min(q) < OK_FROM:
        reason = f"a seed falls behind: q = {min(q):.2f}"
    return _result(runs, reference, UNCLEAR if reason else OK, reason, HEALTHY, q=q, p=p, d=d)


def remedy_of(label: Label, gains: Sequence[Gain]) -> Remedy:
    """What a change does that the label knows nothing of, by the gain of each seed."""
    return _remedy(label.q_of_seeds, _shares(gains, label.reference))


def _remedy(faulty: Sequence[float], treated: Sequence[float]) -> Remedy:
    q, p = float(np.mean(treated)), sign_flip_p([t - f for t, f in zip(treated, faulty)])
    return Remedy(q, p, rescues=q >= OK_FROM and p < SIGNIFICANCE)


def _shares(gains: Sequence[Gain], reference: float) -> list[float]:
    return [gain.value / reference for gain in gains]


def _result(
    runs: Sequence[Gain],
    reference: float,
    came_of_it: str,
    reason: str,
    otherwise: str = DROPPED,
    q: Sequence[float] = (),
    p: float = 1.0,
    d: float = 0.0,
    killed: bool = False,
    remedies: Mapping[str, Remedy] | None = None,
) -> dict[str, Any]:
    return {
        "label": DROPPED if reason else otherwise,
        "reason": reason,
        "outcome": came_of_it,
        "q": float(np.mean(q)) if q else 0.0,
        "q_of_seeds": tuple(q),
        "metrics": tuple(gain.metric for gain in runs),
        "trivial": runs[0].trivial,
        "reference": reference,
        "p": p,
        "d": d,
        "killed": killed,
        "remedies": remedies or {},
    }


class Runs:
    """Trains programs, each run once: a twin is often a remedy too, and shared by several programs.

    Args:
        ran: called after each run that was asked for.
    """

    def __init__(self, ran: Callable[[], None] = lambda: None) -> None:
        self._ran = ran
        self._known: dict[tuple[Any, ...], Gain] = {}

    def gains(self, program: Program) -> Gains:
        """The gains of ``program`` with changes laid over its settings."""
        return lambda changes: [self._gain(program, changes, seed) for seed in SEEDS]

    def _gain(self, program: Program, changes: Mapping[str, Any], seed: int) -> Gain:
        settings = {**program.settings, **changes}
        key = (program.recipe.__module__, program.recipe.__qualname__, repr(sorted(settings.items())), seed)
        if key not in self._known:
            self._known[key] = gain_of(program.build(seed, changes))
        self._ran()
        return self._known[key]


def gain_of(task: Task) -> Gain:
    """Train ``task`` to its end."""
    return Gain(train(task).metric, task.trivial)


def number_of_runs(program: Program) -> int:
    """At most; a program that does not fail has no need of its remedies."""
    return len(SEEDS) * (1 + bool(program.twin) + len(program.remedies))


def fingerprint(program: Program) -> str:
    """Tells whether a program is still the one that was labelled; of the recipe only its name counts.

    >>> len(fingerprint(Program("a/b", "healthy", print, {})))
    12
    """
    recipe = f"{program.recipe.__module__}.{program.recipe.__qualname__}"
    parts = [sorted(program.settings.items()), sorted(program.twin.items()), sorted(program.remedies.items())]
    return hashlib.sha256(repr([recipe, program.family, *parts]).encode()).hexdigest()[:12]


@dataclass
class LabelFile:
    """The labels made so far, by name of the program, with how they were made."""

    path: Path = LABELS
    made_by: Mapping[str, str] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = LABELS) -> LabelFile:
        """What was written there; without labels where there is no such file."""
        if not path.exists():
            return cls(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(path, content["made_by"], {name: _from_json(row) for name, row in content["labels"].items()})

    def write(self) -> None:
        content = {
            "made_by": dict(self.made_by),
            "seeds": SEEDS,
            "labels": {name: _to_json(self.labels[name]) for name in sorted(self.labels)},
        }
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path)

    def missing(self, programs: Iterable[Program]) -> list[Program]:
        """Those without a label, or changed since."""
        known = {name: found.fingerprint for name, found in self.labels.items()}
        return [program for program in programs if known.get(program.name) != fingerprint(program)]


def _to_json(found: Label) -> dict[str, Any]:
    return rounded(asdict(found))


def rounded(value: Any) -> Any:
    """Floats to six digits, non-finite ones as text."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def _from_json(row: Mapping[str, Any]) -> Label:
    floats = {name: float(row[name]) for name in ("q", "trivial", "reference", "p", "d")}
    tuples = {name: tuple(map(float, row[name])) for name in ("q_of_seeds", "metrics")}
    remedies = {cause: Remedy(**remedy) for cause, remedy in row["remedies"].items()}
    return Label(**{**row, **floats, **tuples, "remedies": remedies})
