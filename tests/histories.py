"""A gallery of histories: hostile ones, which nothing may choke on, and healthy ones, which nothing may flag.

A run is a list of steps, each a dict from layer to gradient norm, None standing for "no gradient".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from gradwatch import Alert, History, StepStats
from gradwatch.progress import APART
from gradwatch.records import MISTAKES
from gradwatch.rules import Rule

Step = Mapping[str, float | None]
Run = list[Step]

NAN, INF = float("nan"), float("inf")


def stats(number: int, step: Step, **sampled: Any) -> StepStats:
    """One step's statistics, the total by definition: the root of the sum of squares."""
    norms = np.array([0.0 if norm is None else norm for norm in step.values()], dtype=np.float64)
    has_grad = np.array([norm is not None for norm in step.values()], dtype=bool)
    with np.errstate(over="ignore"):
        total = float(np.sqrt(np.sum(norms**2)))
    return StepStats(number, one_tuple(tuple(step)), norms, has_grad, total, **sampled)


@cache
def one_tuple(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same for equal names, as those of one model are."""
    return names


def history_of(run: Iterable[Step | StepStats], window: int = 512) -> History:
    history = History(window)
    for number, step in enumerate(run):
        history.append(step if isinstance(step, StepStats) else stats(number, step))
    return history


def told_by(rule: Rule, run: Iterable[StepStats]) -> list[Alert]:
    """The alerts of ``rule``, asked after each step, one for each layer."""
    history, found = History(), []
    for step in run:
        history.append(step)
        found += rule.check(history)
    return each(found)


def each(alerts: Iterable[Alert]) -> list[Alert]:
    """One for each layer that they concern, input first."""
    return [replace(a, layer=name, layers=()) for a in alerts for name in a.concerned or (None,)]


LOOK = 220
"""A step at which two looks after the first ones count."""


def slow(
    step: Step,
    left: float,
    start: Mapping[str, Any] | None = None,
    later: Mapping[str, Any] | None = None,
    first: Step | None = None,
    before: float | None = None,
) -> list[StepStats]:
    """Equal steps, of which a close look at LOOK tells that this share of the outputs' error is left.

    Args:
        step: of each.
        left: NaN where that is not known.
        start: what close looks at the first steps tell besides.
        later: what the one at LOOK tells besides.
        first: the first step, where it is another one.
        before: the share that was left at the look before.
    """
    early = [stats(i, step if i else first or step, output_error=1.0, **(start or {})) for i in range(16)]
    late = stats(LOOK, step, output_error=left, **(later or {}))
    between = [stats(i, step, output_error=before if i == LOOK - APART - 5 else None) for i in range(16, LOOK)]
    return [*early, *between, late]


def layers(norms: Iterable[float | None]) -> Step:
    return {f"fc{i}": norm for i, norm in enumerate(norms)}


BUCKETS = 80
"""Of the histogram of a close look."""

SEEN: dict[str, list[float]] = {
    "update_ratio": [NAN, 0.0, 1e-9, 1e-4, 1e-3, 0.05, 0.5, 0.9, 20.0, INF],
    "input_size": [NAN, 0.0, 1e-320, 1e-3, 0.1, 1.0, 30.0, 2e3, 1e5, 1e300, INF],
    "saturated": [NAN, 0.0, 0.3, 0.5, 0.6, 1.0],
    "time_ratio": [NAN, 0.0, 1e-9, 1e-5, 1e-2, 1.0, INF],
    "time_gain": [NAN, 0.0, 0.2, 0.45, 0.7, 1.0],
    "variation": [NAN, 0.0, 1e-14, 1e-4, 0.1, 1.0, INF],
    "variation_within": [NAN, 0.0, 1e-14, 1e-4, 0.1, 1.0, INF],
    "given_nothing": [NAN, 0.0, 0.5, 0.9, 1.0],
    "data_rms": [NAN, 0.0, 1e-30, 1.0, 300.0, 1e30, INF],
    "steps_read": [NAN, 1.0, 20.0],
    "sequences_read": [NAN, 1.0, 32.0],
    "max_abs": [0.0, 5e-324, 1e-8, 1e-5, 1.0, 1e308],
    "zero_fraction": [0.0, 0.3, 1.0],
}
"""What a close look may tell of a layer."""


def look(rng: np.random.Generator, width: int) -> dict[str, Any]:
    """What a close look at a step may tell, any part of it missing at random."""
    found: dict[str, Any] = {name: rng.choice(values, width) for name, values in SEEN.items()}
    found["total_update"] = float(rng.choice([NAN, 0.0, 1e-3, 0.4, 0.6, 5.0, INF]))
    found["output_error"] = float(rng.choice([NAN, 0.0, 1e-9, 0.5, 0.8, 0.95, 1.0, 1.2, INF]))
    found["output_gradient"] = float(rng.choice([NAN, 0.0, 1e-300, 0.5, 0.6, 1.0, INF]))
    found["loss_gradient"] = float(rng.choice([NAN, 0.0, 1e-300, 0.5, 1.0, INF]))
    found["out_of_reach"] = float(rng.choice([NAN, 0.0, 0.5, 1.0]))
    found["output_scatter"] = float(rng.choice([NAN, 0.0, 0.3, 0.6, 1.0]))
    found["output_offset"] = float(rng.choice([NAN, 0.0, 0.95, 1.0]))
    found["output_variation"] = float(rng.choice([NAN, 0.0, 1e-9, 0.5, 1.0]))
    found["output_row"] = float(rng.choice([NAN, 0.0, width - 1, width]))
    found["loss_mismatch"] = float(rng.choice([NAN, *range(len(MISTAKES))]))
    found["unregistered"] = int(rng.integers(0, 2)) * 4160
    found["idle"] = rng.random(width) < 0.5
    found["stacked"] = rng.random(width) < 0.5
    found["towers"] = rng.integers(0, 2, width)
    found["alike"] = rng.random(width) < 0.5
    found["dropped"] = float(rng.choice([NAN, 0.0, 0.5, 0.95, 1.0]))
    found["evaluates"] = float(rng.choice([NAN, 0.0, 1.0]))
    found["broken"] = bool(rng.random() < 0.5)
    found["half"] = bool(rng.random() < 0.5)
    found["not_zeroed"] = bool(rng.random() < 0.5)
    found["trained"] = rng.random(width) < 0.5
    found["histogram"] = rng.integers(0, 9, (width, BUCKETS)) * (np.arange(BUCKETS) >= rng.integers(0, BUCKETS + 1))
    return {name: value for name, value in found.items() if rng.random() < 0.7}


def noisy(steps: int = 60, seed: int = 0, width: int = 3) -> Run:
    """Ordinary steps to put a fault into."""
    return [layers(row) for row in np.random.default_rng(seed).lognormal(0.0, 0.3, (steps, width)).tolist()]


def _with(run: Run, at: Iterable[int], **changes: float | None) -> Run:
    return [{**step, **changes} if i in set(at) else step for i, step in enumerate(run)]


HOSTILE: dict[str, Run] = {
    "empty": [],
    "no layers": [{}] * 30,
    "one step": [layers([1.0, 2.0])],
    "one layer": [{"fc": 1.0}] * 60,
    "constant": [layers([1.0, 1.0, 1.0])] * 60,
    "one NaN": _with(noisy(), [40], fc1=NAN),
    "one inf": _with(noisy(), [40], fc1=INF),
    "NaN from the first step": [layers([NAN, NAN, NAN])] * 60,
    "NaN and inf by turns": [layers([NAN, INF, 1.0]), layers([1.0, NAN, INF])] * 30,
    "one spike": _with(noisy(), [40], fc0=1e4),
    "repeated spikes": _with(noisy(100), range(30, 100, 10), fc0=1e4, fc2=1e4),
    "a spike every other step": _with(noisy(100), range(30, 100, 2), fc1=1e4),
    "explodes to inf": [layers([10.0**i, 10.0**i]) for i in range(0, 300, 5)] + [layers([INF, INF])] * 10,
    "vanishes to zero": [layers([10.0**-i, 1.0]) for i in range(0, 400, 5)],
    "vanishing and recovering": noisy(30) + _with(noisy(60), range(60), fc0=1e-9) + noisy(60),
    "no layer has a gradient": [layers([None, None, None])] * 60,
    "no gradient by turns": [layers([None, 1.0]), layers([1.0, None])] * 50,
    "all zero": [layers([0.0, 0.0, 0.0])] * 100,
    "zero, alive, zero": [layers([0.0, 1.0])] * 70 + [layers([1.0, 1.0])] * 10 + [layers([0.0, 1.0])] * 70,
    "zero, then huge, then NaN": [layers([0.0, 0.0])] * 60 + [layers([1e6, 1e6])] + [layers([NAN, NAN])] * 5,
    "a long name": [{"x" * 300: 1e-12, "y" * 300: 1.0}] * 60,
    "names that are patterns": [{"[a]*?": 1e-12, "": 1.0, "{0}%s": NAN}] * 60,
    "1000 layers": [layers(row) for row in np.random.default_rng(0).lognormal(0.0, 1.0, (40, 1000)).tolist()],
    "1000 layers broken at once": noisy(40, width=1000) + [layers([NAN] * 1000)] * 2 + noisy(5, width=1000),
    "largest and smallest floats": [layers([1e308, 5e-324]), layers([5e-324, 1e308])] * 50,
    "smallest, then largest floats": [layers([5e-324, 5e-324])] * 60 + [layers([1e308, 1e308])] * 10,
}

CHANGING: dict[str, Run] = {
    "a layer joins": noisy(40, width=2) + noisy(60, seed=1, width=3),
    "a layer leaves": noisy(40, width=3) + noisy(60, seed=1, width=2),
    "layers swap places": noisy(40, width=2) + [dict(reversed(step.items())) for step in noisy(60, seed=1, width=2)],
    "a layer leaves while it is NaN": _with(noisy(40), range(30, 40), fc2=NAN) + noisy(60, seed=1, width=2),
    "every layer is replaced": noisy(40) + [{f"new.{k}": v for k, v in step.items()} for step in noisy(60, seed=1)],
    "all layers leave and come back": noisy(30) + [{}] * 5 + noisy(30, seed=1),
}
"""Hostile as well: the set of layers changes while training runs."""


def healthy(scale: float = 1.0, decay_steps: float = np.inf, seed: int = 0, steps: int = 250) -> list[StepStats]:
    """A run as training makes it: levels within two decades, lognormal noise, perhaps a decay, calm weights.

    A close look at the first steps and at each hundredth finds layers of 10 to 1e6 elements, inputs of norm 1 to 10,
    and some saturation.
    """
    rng = np.random.default_rng(seed)
    level = rng.permutation(np.geomspace(0.1, 10.0, 12)) * np.exp(-np.arange(steps)[:, None] / decay_steps)
    norms = scale * level * rng.lognormal(0.0, 0.4, level.shape)
    width = level.shape[1]
    numel = rng.permutation(np.geomspace(10.0, 1e6, width))
    calm = {
        "update_ratio": np.full(width, 1e-3),
        "total_update": 1e-3,
        "input_size": rng.permutation(np.geomspace(1.0, 10.0, width)),
        "saturated": np.append(np.linspace(0.0, 0.4, width - 1), 1.0),
        "time_ratio": np.geomspace(1e-2, 1.0, width),
        "half": False,
    }
    return [
        stats(i, layers(row), numel=numel, **(calm if i < 20 or i % 100 == 1 else {}))
        for i, row in enumerate(norms.tolist())
    ]
