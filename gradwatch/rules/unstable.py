"""Unstable: large steps throw the gradient up again and again, and it does not come down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming, leading
from gradwatch.history import EARLY, History
from gradwatch.patterns import check_number
from gradwatch.progress import APART, LITTLE
from gradwatch.records import Alert, BoolArray, Severity
from gradwatch.rules.base import StepRule, is_shallow
from gradwatch.rules.state import ModelState


@dataclass
class Unstable(StepRule):
    """The total norm leaps for a single step and falls back, several times, while it is what it was at the start.

    A step beyond the limit that the loss's curvature sets overshoots: the next gradient is far larger, and the one
    after it is normal again, since the step after a large gradient leaves the steep place. A run that learns has such
    leaps too, from single batches, where its gradient has come down (a few examples that are still wrong make all of
    it), or where its steps are small. So the weights must be measured to move far, and the usual norm must not have
    fallen. Where batches are small, or tell of rewards, single norms lie as far below the usual one as above it: that
    is noise, and no leap of it is very large. One leap is a :class:`~gradwatch.rules.Spike`, a rise that lasts is
    :class:`~gradwatch.rules.Exploding`.

    It is a WARNING until a look has told what was learned, and an ERROR where that is little, or cannot be told: before
    it finds what a sequence ends in, a recurrent network leaps as well.

    A step at which other layers have a gradient than before it or after it is no leap: networks may take turns. Nor is
    a single layer judged, which may need large steps.

    Args:
        leaps: how many in the window.
        factor: least ratio of a leap to the median total norm of the window.
        largest_factor: the same of the largest leap.
        steepness: least ratio of a leap to the step before it and to the step after it.
        below: limit of the share of steps that lie as far below the median as a leap is above it.
        update: limit of ``|step| / |weights|`` over all layers, the last time that it was measured; half of it in a
            network that has learned little since the first steps (:class:`~gradwatch.progress.Progress`).
        of_all_layers: limit of the same times the number of layers, above which in such a network one leap less is
            enough, and no large one is needed: the changes of layers multiply.
        largest: the same of the largest step so far that was measured.
        level: least ratio of that median to the one of the first steps.
        window: steps looked at, and without leaps before it is over.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> from dataclasses import replace
        >>> norms = [1.0] * 5 + [30.0, 1.0, 1.0, 1.0] * 3
        >>> history = History()
        >>> for step, norm in enumerate(norms):
        ...     stats = History.from_grad_norms(fc=[norm], out=[norm]).latest
        ...     history.append(replace(stats, step=step, total_update=0.02))
        >>> for alert in Unstable().check(history):
        ...     print(alert.step, alert.severity.name, alert.message)
        14 WARNING the total gradient norm leapt 3 times in 15 steps beyond 5 times its usual 1.41, which does not \
come down; steps move the weights by 0.02 of their size

    Source: LeCun et al., Efficient BackProp, 1998: steps are stable up to 2 / curvature. Cohen et al., ICLR 2021 and
    arXiv:2207.14484, for training at that limit by gradient descent and Adam. Bjorck et al., NeurIPS 2018, and Xiong
    et al., ICML 2020: without normalisation it is met at lower learning rates.
    """

    name: ClassVar[str] = "unstable"
    follows: ClassVar[tuple[str, ...]] = (
        "loss_mismatch",
        "not_zeroed",
        "overflow",
        "exploding",
        "update_ratio",
        "vanishing",
        "saturated",
        "dead",
    )

    leaps: int = 3
    # Healthy networks of docs/detection.md whose steps are that large have two at most.
    factor: float = 5.0
    # The total norm of a healthy run strays by a factor of 3.
    largest_factor: float = 20.0
    # Small batches and rare classes make smaller leaps; single outliers larger ones, but seldom three.
    steepness: float = 3.0
    below: float = 0.05
    # Of the faulty runs of docs/detection.md most have no such step; where batches are small there are many.
    update: float = 4.5e-3
    # Usual is 1e-3. Healthy networks with as many leaps mostly move by less than 4e-3, faulty ones by 5e-3 and more.
    of_all_layers: float = 0.12
    # Healthy networks of docs/detection.md that learn slowly have less than 0.1.
    largest: float = 0.015
    # Between 0.011, by which healthy stacked LSTMs of docs/detection.md leap as they wake up, and 0.018 of faulty ones.
    level: float = 0.4
    # What has learned a part has less: a converged run of docs/detection.md, with many leaps, a third.
    window: int = 100

    def __post_init__(self) -> None:
        self._check_steps("leaps", at_least=1)
        self._check_steps("window", at_least=2)
        check_number("Unstable: below", self.below, at_least=0, at_most=1)
        for argument in ("factor", "largest_factor", "steepness"):
            check_number(f"Unstable: {argument}", getattr(self, argument), above=1)
        for argument in ("update", "of_all_layers", "largest", "level"):
            check_number(f"Unstable: {argument}", getattr(self, argument), at_least=0)
        super().__post_init__()

    def reset(self) -> None:
        super().reset()
        self._state = self._remembered["state"] = ModelState(
            start=np.nan,
            update=0.0,
            largest=0.0,
            opened_at=-1,
            latest=0,
            since=0,
            warned=False,
            by=0.0,
            usual=0.0,
            leaps=0,
            enough=0,
            of=0,
        )

    @property
    def open_layers(self) -> tuple[str, ...] | None:
        return None if self._state["opened_at"] < 0 else ()

    def calm_steps(self, history: History, coming: Coming) -> int:
        state = self._state
        if state["opened_at"] >= 0 or not len(history) or (np.isnan(state["start"]) and coming.count < EARLY):
            return 0
        if not state["largest"] > self.largest:
            return len(coming)
        total = np.append(history.total_norm[-1:], coming.total_norm)
        return leading(~(total[1:] <= total[:-1] / self.steepness))

    def _check_latest(self, history: History) -> list[Alert]:
        stats, state, total = history.now, self._state, history.total_norm
        if not np.isnan(history.total_update[-1]):
            state["update"] = history.total_update[-1]
            state["largest"] = max(state["largest"], state["update"])
        if np.isnan(state["start"]) and history.count <= EARLY:  # later it would be no start
            finite = total[np.isfinite(total) & ~history.skipped]
            state["start"] = np.median(finite[:FIRST]) if len(finite) >= FIRST else np.nan
        if state["opened_at"] >= 0 and history.count - state["latest"] > self.window:
            return [self._recovered(stats.step)]
        if state["warned"] and self._is_certain(history):
            state["warned"] = False
            is_known = np.isfinite(history.progress.left)
            return [self._alert(stats.step, Severity.ERROR, f"; {history.progress.in_words}" * bool(is_known))]
        fell = len(total) > 2 and np.isfinite(total[-1]) and total[-1] <= total[-2] / self.steepness
        if not fell or not state["largest"] > self.largest or is_shallow(stats):
            return []
        little = history.progress.is_none(but=LITTLE)
        if not state["update"] > self.update / (1 + little):
            return []
        fast = little and state["update"] * np.count_nonzero(stats.has_grad) > self.of_all_layers
        enough, largest = (max(self.leaps - 1, 1), self.factor) if fast else (self.leaps, self.largest_factor)
        recent = total[-self.window :]
        with np.errstate(over="ignore"):  # of the two largest floats
            usual = float(np.median(recent[np.isfinite(recent)]))
        leaps = recent[1:-1][self._leaps(history, usual)]
        if len(leaps) < enough or not usual >= self.level * state["start"]:
            return []
        if leaps.max() / largest <= usual or np.mean(recent < usual / self.factor) > self.below:
            return []
        state["latest"] = history.count
        if state["opened_at"] >= 0:
            return []
        told = {"leaps": len(leaps), "enough": enough, "of": min(self.window, len(total)), "usual": usual}
        for name, number in (told | {"opened_at": stats.step, "since": history.count, "by": state["update"]}).items():
            state[name] = number
        state["warned"] = not self._is_certain(history)
        return [self._alert(stats.step, Severity.WARNING if state["warned"] else Severity.ERROR)]

    def _is_certain(self, history: History) -> bool:
        """Whether a look has told that little was learned, or none has told for long."""
        progress, state = history.progress, self._state
        if progress.looked_at < max(state["opened_at"] - APART, 0):
            return bool(history.count - state["since"] > APART)
        return not progress.left <= LITTLE

    def _alert(self, step: int, severity: Severity, more: str = "") -> Alert:
        state = self._state
        message = (
            f"the total gradient norm leapt {state['leaps']} times in {state['of']} steps beyond {self.factor:g} times "
            f"its usual {state['usual']:.3g}, which does not come down; steps move the weights by {state['by']:.2g} of "
            "their size"
        )
        numbers = float(state["leaps"]), float(state["enough"])
        return Alert(step, self.name, None, severity, *numbers, message + more)

    def _recovered(self, step: int) -> Alert:
        steps, self._state["opened_at"], self._state["warned"] = step - self._state["opened_at"], -1, False
        message = f"recovered from {self.name} after {steps} steps, the last {self.window} of them without such a leap"
        return Alert(step, self.name, None, Severity.INFO, 0.0, float(self.leaps), message)

    def _leaps(self, history: History, usual: float) -> BoolArray:
        """Which steps of the window, but the first and the last, are leaps."""
        total, alive = history.total_norm[-self.window :], history.grad_norm[-self.window :] > 0
        same = (alive[1:] == alive[:-1]).all(axis=1)
        before, at, after = total[:-2], total[1:-1], total[2:]
        steep = np.maximum(before, after) <= at / self.steepness
        leaps: BoolArray = steep & np.isfinite(at) & (at / self.factor > usual) & same[1:] & same[:-1]
        return leaps


FIRST = 5
"""Steps that are finite and not skipped, whose median norm is that of the start."""
