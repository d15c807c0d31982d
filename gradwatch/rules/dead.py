"""Dead: a layer's gradient is exactly zero."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming, leading
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.progress import NOTHING
from gradwatch.records import FloatArray, Severity, or_nan
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import LayerState, ModelState


@dataclass
class Dead(LayerRule):
    """A layer's gradient is exactly zero, step after step, while the model trains.

    Where the layer and all before it are dead and one after it is not, nothing before that one learns any more: ERROR,
    within a few steps; within ``isolated_patience`` where each step has a single example, which may well pass nothing.
    A dead layer among living ones may be an expert that is never chosen or a detached branch: a WARNING to look, after
    more patience. Where all layers are zero it takes twice that, and is none where the loss asks for nothing, as a
    hinge loss does whose margins are kept; it is an ERROR where nothing was learned. Where none ever had a gradient it
    is told of after 20 steps, and is an ERROR after ``isolated_patience``. A layer without a gradient (frozen, not
    used) is not dead.

    As good as dead is what lies before a layer that nearly all examples give nothing but zeros, and from where on it
    stays so: those few that get through are all that there is to learn from. It is seen at the first steps and at the
    sampled ones. Where nothing has been learned a quarter of the examples is enough, or a single look.

    Args:
        patience: steps in a row before the alert, for layers that are cut off from the output.
        isolated_patience: the same for a dead layer among living ones.
        recovery: steps in a row with a gradient before the episode is over.
        warmup: steps at the start that are not judged: branches initialised to zero come alive there.
        nothing: limit of the share of the examples that give a layer nothing, for ``patience`` looks in a row.
        some: the same in a network that has learned nothing (:class:`~gradwatch.progress.Progress`).

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> for alert in Dead().check(History.from_grad_norms(fc1=[0.0] * 10, fc2=[1.0] * 10)):
        ...     print(alert.step, alert.severity.name, alert.message)
        8 ERROR fc1: gradient was exactly zero for 6 steps, and so was that of every layer before it

    Source: Lu et al., Commun. Comput. Phys. 28, 2020 (dying ReLU).
    """

    name: ClassVar[str] = "dead"
    severity: ClassVar[Severity] = Severity.WARNING
    follows: ClassVar[tuple[str, ...]] = (
        "loss_mismatch",
        "heavy_dropout",
        "not_zeroed",
        "exploding",
        "update_ratio",
        "vanishing",
        "saturated",
        "underflow",
        "shrinking",
        "flat_output",
    )

    patience: int = 6
    # More than the steps in which one network of several is trained and the others' gradients are left at zero.
    isolated_patience: int = 50
    recovery: int = 5
    # A network on its last legs has a gradient in one step of several, and is told of once.
    warmup: int = 3
    nothing: float = 0.8
    # In healthy networks of docs/detection.md every example gives every layer something, even where 95% is zero.

    some: float = 0.25
    # Of the networks there that have learned little, healthy ones give nothing to 3% of the examples at most.

    def __post_init__(self) -> None:
        for argument in ("nothing", "some"):
            check_number(f"Dead: {argument}", getattr(self, argument), above=0, at_most=1)
        self._check_steps("isolated_patience", at_least=1)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def calm_steps(self, history: History, coming: Coming) -> int:
        if np.logical_or.reduce(self._starved["looks"] >= self.patience):
            return 0
        calm = leading(coming.least > 0)
        if calm:
            self._zero["steps"][:] = 0
            self._run["alive"] |= bool(np.logical_or.reduce(coming.total_norm[:calm] != 0))
        return calm

    def judge(self, history: History) -> Judgement:
        stats = history.now
        self._run["alive"] |= stats.total_norm != 0
        zero = stats.has_grad & (stats.grad_norm == 0)
        alive = stats.has_grad & ~zero
        cut_off = zero & ~np.logical_or.accumulate(alive) & alive.any()  # before the first that is alive
        if stats.numel is not None and stats.numel[cut_off].sum() <= 1:  # a number of the model's own is before nothing
            cut_off &= False
        starved = stats.has_grad & np.isfinite(stats.grad_norm) & (self._starved["looks"] >= self.patience)
        steps = np.where(zero & (history.count > self.warmup), self._zero["steps"] + 1, 0)
        self._zero["steps"] = steps
        least = self.isolated_patience if self._run["alive"] else min(NEVER, self.isolated_patience)
        if self._run["alive"] and stats.total_norm == 0:  # until a look has told whether anything is asked for
            least = INF if self._run["solved"] else 2 * least
        cut_off &= ~np.bool_(self._run["single"]) | (steps > self.isolated_patience - self.patience)
        bad = (steps > 0) & (cut_off | (steps > least - self.patience))
        self._episodes.hasten(starved, self.patience - 1)
        bad, cut_off, alive = bad | starved, cut_off | starved, alive & ~starved
        opens = bad & ~self._episodes["open"] & (self._episodes["bad_steps"] >= self.patience - 1)
        self._cut_off = bool((opens & cut_off).any())
        waits = opens & ~cut_off & self._cut_off  # the alerts of one step are of one kind
        known = stats.has_grad & np.isfinite(stats.grad_norm) & ~waits
        never = bad & (not self._run["alive"]) & (steps > self.isolated_patience)
        severity = Severity.ERROR if self._cut_off else None
        return Judgement(
            stats.grad_norm,
            np.zeros(len(zero)),
            bad & ~waits,
            good=alive,
            known=known,
            severity=severity,
            certain=never,
            worsens=NOTHING if stats.total_norm == 0 else 0.0,
        )

    def describe(self, value: float, threshold: float) -> str:
        steps = int(self._zero["steps"].max())
        if value > 0 or (self._cut_off and steps < self.patience):
            return f"{self._starved['share'].max():.0%} of the examples give a layer behind it nothing but zeros"
        if self._cut_off:
            return f"gradient was exactly zero for {steps} steps, and so was that of every layer before it"
        never = ", and no layer ever had one" * (not self._run["alive"])
        return f"gradient was exactly zero for {steps} steps{never}"

    def reset(self) -> None:
        super().reset()
        self._zero = self._remembered["zero"] = LayerState(steps=0)
        self._starved = self._remembered["starved"] = LayerState(looks=0, some_looks=0, share=0.0)
        self._run = self._remembered["run"] = ModelState(alive=False, single=False, solved=False)
        self._cut_off = False

    def look(self, history: History) -> None:
        """What a close look tells: the layers before one that is given nothing, where it stays so from there."""
        stats, starved = history.now, self._starved
        if stats.loss_gradient is not None:
            self._run["solved"] = stats.loss_gradient == 0
        if stats.variation is not None:
            self._run["single"] = bool(np.isnan(stats.variation).all() and np.isnan(or_nan(stats.output_variation)))
        if stats.given_nothing is None or stats.variation is None:
            return
        starved["share"][:] = 0.0
        for looks, limit in (("some_looks", self.some), ("looks", self.nothing)):
            row = first_starved(stats.given_nothing, stats.variation, limit)
            before = np.arange(len(stats.layers)) < (row or 0)
            starved[looks] = np.where(before, starved[looks] + 1, 0)
            starved["share"][before] = stats.given_nothing[row] if row else 0.0
        if history.progress.is_none(but=NOTHING):  # a hundred steps did not bring it alive
            lasting = np.where(starved["looks"] > 0, self.patience, 0)
            starved["looks"] = np.maximum(np.maximum(starved["looks"], starved["some_looks"]), lasting)


INF = sys.maxsize
"""More steps than there will be."""

NEVER = 20
"""Steps after which it is told of a network that never had a gradient, as of one that none comes to."""

SAME = 1e-7
"""Share that differs from example to example up to which there is no difference."""


def first_starved(given_nothing: FloatArray, variation: FloatArray, limit: float) -> int | None:
    """The first layer but one that at least ``limit`` of the examples give nothing, if that stays so to the last one.

    A layer that is given nothing passes its bias on, the same for every example.

    >>> nan = np.nan
    >>> first_starved(np.array([0.0, nan, 0.9, 0.0]), np.array([1.0, nan, 0.2, 0.0]), 0.8)
    2
    >>> first_starved(np.array([0.0, nan, 0.9, 0.0]), np.array([1.0, nan, 0.2, 0.3]), 0.8)
    """
    known = np.flatnonzero(np.isfinite(given_nothing))[1:]
    nothing = np.where(variation[known] < SAME, 1.0, given_nothing[known])
    lasting = np.minimum.accumulate(nothing[::-1])[::-1] >= limit
    found = known[lasting & (given_nothing[known] >= limit)]
    return int(found[0]) if len(found) else None
