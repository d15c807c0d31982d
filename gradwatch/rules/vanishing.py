"""Vanishing: the gradient is lost on its way from the output, so that no layer before a certain one learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming, leading
from gradwatch.history import History
from gradwatch.patterns import PerLayer
from gradwatch.progress import LITTLE, NOTHING
from gradwatch.records import BoolArray, FloatArray, IntArray, Severity
from gradwatch.rules.base import Judgement, LayerRule, are_tables
from gradwatch.rules.signal import Signal
from gradwatch.rules.state import LayerState


@dataclass
class Vanishing(LayerRule):
    """A layer and all layers before it get far less gradient than the layers after it, or next to nothing at all.

    The comparison along depth makes the rule free of the loss's scale: a small loss, a converged run or half-precision
    loss scaling shrink all layers alike. It is of a layer *and all before it*, since a single small gradient within a
    network is no sign of harm: the queries and keys of attention, a bias before a normalisation, a branch that begins
    near zero. Of networks beside each other, as a policy and its value, each is compared with itself, where a probed
    step has shown that no data flows between them. A layer must be small both by norm and by root mean square, which
    large embeddings and short biases pull apart. What falls in one place mainly, as between networks with losses of
    their own or behind a branch that is registered first, is a WARNING, and so is what was fine before: where a network
    has learned what there is to learn, its last layer may still have a gradient, and where it is known that much was
    learned nothing is told. Where it goes on to learn nothing it becomes an ERROR.

    A layer that is measured to move as healthy ones do, as Adam makes it, must be three times smaller still, and is
    told of after a hundred steps only, unless it is beyond all hope: deep networks often find their way out by then.
    Where the input of the last layer has shrunk as well and the weights are measured to hardly move, less is enough: a
    signal that fades forward and a gradient that fades backward are one fault seen from both sides. So is a signal that
    from the start no longer tells the examples apart when it arrives at the last layer, or in a transformer the places
    of a sequence: there, the single layers without a gradient are found.

    A table of which a step touches few rows, as an embedding, is lost only with a layer after it: over its rows the
    gradients of the examples do not add up, and of its many elements most are zero.

    A gradient of exactly zero is for :class:`~gradwatch.rules.Dead`, unless a layer after it vanishes too.

    Args:
        ratio: limit of the root mean square, relative to the largest among the layers from here on.
        norm_ratio: limit of the norm, likewise.
        threshold: absolute limit of the norm, for a layer that never was ten times above it in this run, and whose
            weights are not measured to move.
        window: steps whose median is compared.
        patience: steps in a row before the alert.
        recovery: steps in a row above twice the limits before the episode is over.
        warmup: steps at the start that are not judged: branches initialised to zero come alive there.

    ``ratio``, ``norm_ratio`` and ``threshold`` are a number, or a number per pattern of layer names:
    ``{"encoder.*": 1e-5}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> rule = Vanishing(patience=3, warmup=0)
        >>> for alert in rule.check(History.from_grad_norms(fc1=[2e-9] * 5, fc2=[1e-5] * 5, fc3=[0.5] * 5)):
        ...     print(alert.message)
        fc1, fc2: gradient norm 2e-09 stayed below 0.0015 for 3 steps, and so did every layer before it

    Source: Glorot and Bengio, AISTATS 2010, section 4.2, for the decay along depth; Schoenholz et al., ICLR 2017, for
    signal and gradient that fade together; AutoTrainer (Zhang et al., ICSE 2021) compares first and last layer.
    """

    name: ClassVar[str] = "vanishing"
    severity: ClassVar[Severity] = Severity.ERROR
    follows: ClassVar[tuple[str, ...]] = (
        "not_zeroed",
        "exploding",
        "update_ratio",
        "saturated",
        "underflow",
        "shrinking",
        "dead",
        "flat_output",
    )

    ratio: PerLayer = 3e-3
    # Healthy networks of docs/detection.md stay above 0.01 after their first steps; a sigmoid layer costs a third.
    norm_ratio: PerLayer = 1.5e-2
    threshold: PerLayer = 1e-7
    # SageMaker's limit for the mean |gradient|; as a limit of the norm it is met far later.
    window: int = 8
    patience: int = 4
    recovery: int = 5
    warmup: int = 4
    # A branch that begins at zero has its gradient after one step, at a small learning rate after a few.

    def __post_init__(self) -> None:
        self._check_limit("ratio", above=0, at_most=1)
        self._check_limit("norm_ratio", above=0, at_most=1)
        self._check_limit("threshold", at_least=0)
        self._check_steps("window", at_least=1)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def calm_steps(self, history: History, coming: Coming) -> int:
        if self._signal.is_lost_within:
            return 0
        norm, least, largest = coming.grad_norm, coming.least, coming.largest
        highest = max(self.highest("norm_ratio"), self._signal["norm_ratio"])
        fine = (largest < np.inf) & (least >= self.highest("threshold"))
        if not np.logical_and.reduce(least >= highest * largest):
            towers = self._peak["tower"]
            lost = coming.has_grad & (_up_to_here(norm, towers) < highest * _from_here_on(norm, towers))
            fine &= ~np.logical_or.reduce(lost, axis=1)
        calm = leading(fine)
        if calm:
            self._remember_peak(np.maximum.reduce(norm[:calm]))
            self._peak["fine"] += calm * coming.has_grad
        return calm

    def judge(self, history: History) -> Judgement:
        stats = history.now
        norm, layers = stats.grad_norm, stats.layers
        present = stats.has_grad & np.isfinite(norm)
        now, usual = np.where(present, norm, 0.0), self._usual(history)
        self._remember_peak(now)
        lost, back, limit = self._along_depth(history, present, now, usual)
        absolute = self.limit("threshold", layers)
        still = ~(history.update_ratio > STILL) & (self._peak["norm"] < 10 * absolute)
        tiny = still & (now < absolute)
        small = present & (lost | tiny)
        dense = small & ~self._peak["table"]
        small &= np.logical_or.accumulate(dense[::-1])[::-1]  # of tables those before another that is lost
        certain = tiny.any() or self._signal.is_lost
        waits = np.zeros(len(norm), bool) if certain else self._may_find_out(history, now)
        learned = history.progress.of_classes and history.progress.left < LITTLE  # else it may be the targets' mean
        done = learned & (self._peak["fine"] >= LATE)
        bad = small & ~_zero_alone(small, norm) & ~waits & ~done & (history.count > self.warmup)
        severity = None if certain else self._severity(usual / _root(history), present, bad, back)
        early = self._signal["alike"] and not (self._signal["late"] or self._signal.is_lost_within)
        if early and not tiny.any() and present.sum() <= SHALLOW:
            severity = Severity.WARNING  # a few layers of sigmoids learn the mean first, and mostly find out
        self._peak["fine"] += present & ~small
        good = back & ~(still & (now < 2 * absolute))
        limit = np.where(tiny, np.fmax(limit, absolute), limit)
        return Judgement(norm, limit, bad, good, severity=severity, worsens=NOTHING)

    def describe(self, value: float, threshold: float) -> str:
        stayed = f"gradient norm {value:.3g} stayed below {threshold:.3g} for {self.patience} steps"
        if self._signal.is_lost_within:
            return f"{stayed}: the places of a sequence look alike to it"
        stayed += ", and so did every layer before it"
        if self._signal["alike"]:
            stayed += f"; of what the last layer is given {self._signal.share:.1g} differs from example to example"
        return stayed

    def reset(self) -> None:
        super().reset()
        self._peak = self._remembered["peak"] = LayerState(norm=0.0, fine=0, table=False, tower=0)
        self._signal = self._remembered["signal"] = Signal()

    def _usual(self, history: History) -> FloatArray:
        """float64 [L], the median norm of the steps in the window; 0 where there was no gradient."""
        norms, present = history.grad_norm[-self.window :], history.has_grad[-self.window :]
        finite = np.isfinite(norms).all(axis=1)
        if not finite.any():
            return np.zeros(norms.shape[1])
        return np.median(np.where(present, norms, 0.0)[finite], axis=0)

    def look(self, history: History) -> None:
        """What looks tell of the forward signal, which layers are tables, and which are in towers beside each other."""
        self._signal.look(history)
        if (tables := are_tables(history.now)) is not None:
            self._peak["table"] = tables
        if history.now.towers is not None:
            self._peak["tower"] = history.now.towers

    def _along_depth(
        self, history: History, present: BoolArray, now: FloatArray, usual: FloatArray
    ) -> tuple[BoolArray, BoolArray, FloatArray]:
        """Which layers are lost, which are back above twice the limit, and the limit of each norm; arrays [L]."""
        layers, root, towers = history.layers, _root(history), self._peak["tower"]
        strict = np.where(history.update_ratio > MOVES, IF_IT_MOVES, 1.0)
        lost, back, limit = np.ones(len(now), bool), present.copy(), np.full(len(now), np.inf)
        for argument, size in (("ratio", root), ("norm_ratio", np.ones(len(now)))):
            allowed = np.fmax(self.limit(argument, layers) * strict, self._signal[argument])
            for values in (usual, now):  # small usually, and now
                bound = allowed * _from_here_on(values / size, towers)
                lost &= _up_to_here(values / size, towers) < bound
            limit = np.fmin(limit, bound * size)
            back &= _up_to_here(now / size, towers) > 2 * allowed * _from_here_on(now / size, towers)
        if self._signal.is_lost_within:  # single layers, as queries and keys
            bound = ALONE * (usual / root).max(initial=0.0) * root
            alone = np.fmax(usual, now) < bound
            lost, back, limit = lost | alone, back & ~alone, np.where(alone, bound, limit)
        return lost, back, limit

    def _may_find_out(self, history: History, now: FloatArray) -> BoolArray:
        """bool [L], the layers that move, early in a run, and are not beyond all hope."""
        values, towers = now / _root(history), self._peak["tower"]
        limit = TOO_FAR * self.limit("ratio", history.layers)
        hope = _up_to_here(values, towers) >= limit * _from_here_on(values, towers)
        return (history.update_ratio > MOVES) & hope & (history.count <= FINDS_OUT)

    def _severity(self, values: FloatArray, present: BoolArray, bad: BoolArray, back: BoolArray) -> Severity | None:
        """WARNING where there may be another reason: one place, what was fine before, a single layer that is left."""
        few = bad.sum() < max(2, FEW * present.sum())
        beside = np.isin(self._peak["tower"], self._peak["tower"][bad])
        one_fall = _largest_fall(values[beside]) > (ONE_FALL_OF_FEW if few else ONE_FALL)
        late = bad.any() and np.median(self._peak["fine"][bad]) >= LATE
        single = present.sum() > 2 > (present & ~back).sum()
        return Severity.WARNING if one_fall or late or single else None

    def _remember_peak(self, norm: FloatArray) -> None:
        self._peak["norm"] = np.fmax(self._peak["norm"], norm)


SHALLOW = 4
"""Layers up to which a network is shallow."""

STILL = 1e-6
"""Update ratio up to which a layer counts as not moving; healthy training has 1e-3."""

MOVES = 2e-4
"""Update ratio that Adam gives to layers of any gradient at a learning rate of 1e-4."""

IF_IT_MOVES = 1 / 3
"""Factor of the limits for layers that do."""

FINDS_OUT = 100
"""Steps within which they may find their way out, as the healthy deep networks of docs/detection.md do."""

TOO_FAR = 1e-4
"""Factor of ``ratio`` below which none of those was."""

ALONE = 1e-4
"""Limit of a single layer, relative to the largest, where it no longer tells the places of a sequence apart."""

LATE = 20
"""Steps that a layer was fine, after which it is late for an ERROR."""

ONE_FALL = 0.8
"""Share of the whole decay, in decades, that a single place may have."""

ONE_FALL_OF_FEW = 0.5
"""The same where only a few layers are lost."""

FEW = 0.25
"""Share of the layers that is a few; one layer always is."""


def _up_to_here(values: FloatArray, towers: IntArray) -> FloatArray:
    """The largest among each layer itself and those before it in its tower, float64 [..., L].

    >>> _up_to_here(np.array([1.0, 3.0, 2.0, 1.0]), np.array([0, 0, 1, 1])).tolist()
    [1.0, 3.0, 2.0, 2.0]
    """
    found = np.maximum.accumulate(values, axis=-1)
    for tower in np.unique(towers[1:][np.diff(towers) != 0]):  # mostly there is one
        found[..., towers == tower] = np.maximum.accumulate(values[..., towers == tower], axis=-1)
    return found


def _from_here_on(values: FloatArray, towers: IntArray) -> FloatArray:
    """The largest among each layer itself and those after it in its tower, float64 [..., L]."""
    return _up_to_here(values[..., ::-1], towers[::-1])[..., ::-1]


def _root(history: History) -> FloatArray:
    """float64 [L], what makes a root mean square of each norm."""
    numel = None if history.latest is None else history.latest.numel
    return np.ones(len(history.layers)) if numel is None else np.sqrt(np.maximum(numel, 1.0))


def _zero_alone(small: BoolArray, norm: FloatArray) -> BoolArray:
    """bool [L], gradients of exactly zero that no layer after them, which vanishes too, explains."""
    last = np.flatnonzero(small & (norm > 0))[-1:]
    alone: BoolArray = (norm == 0) & (np.arange(len(norm)) >= (last[0] if len(last) else 0))
    return alone


def _largest_fall(values: FloatArray) -> float:
    """How much of the whole decay towards the first layer, in decades, happens in one place; 0 of two layers."""
    kept = values[(values > 0) & np.isfinite(values)]  # a median of the largest floats may be inf
    if len(kept) < 3:
        return 0.0
    rises = np.diff(np.log(np.maximum.accumulate(kept)))
    return float(rises.max() / rises.sum()) if rises.any() else 0.0
