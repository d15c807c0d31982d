"""History: the last steps' statistics as arrays [step, layer]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradwatch.coming import Coming
from gradwatch.patterns import check_whole_number
from gradwatch.progress import EARLY, Progress
from gradwatch.records import BoolArray, FloatArray, IntArray, StepStats, from_state, or_nan, to_state

__all__ = ["EARLY", "History", "finite_median"]


MAD_TO_STD = 1.4826
"""The standard deviation of a normal distribution, in units of its median absolute deviation."""


class Usual(NamedTuple):
    """What the norms of L layers are like, over the steps in which they were finite and not zero; NaN without any."""

    level: FloatArray
    """float64 [L], median of the log norm."""
    spread: FloatArray
    """float64 [L], its robust standard deviation."""
    steps: IntArray
    """int64 [L], of how many steps."""


class History:
    """A bounded window of :class:`~gradwatch.records.StepStats`, oldest first.

    Rows go into a buffer twice as long as the window. When it is full the newest half moves to the front, so an append
    costs one row on average and every array is one contiguous view without a copy.

    Args:
        window: number of steps kept, at least 1.

    Example:
        >>> history = History.from_grad_norms(fc1=[1.0, 2.0], fc2=[0.5, float("nan")])
        >>> history.layers, history.grad_norm.shape
        (('fc1', 'fc2'), (2, 2))
        >>> history.median().tolist()  # non-finite values never enter
        [1.5, 0.5]
    """

    def __init__(self, window: int = 512) -> None:
        check_whole_number("History: window", window, at_least=1)
        self.window = window
        self.count = 0
        """Number of steps ever appended."""
        self.skipped_count = 0
        """Number of them that a gradient scaler skipped."""
        self.latest: StepStats | None = None
        self.first: StepStats | None = None
        """The first step of the run, before the optimizer changed anything; None where that was not seen."""
        self.update_ratio: FloatArray = np.empty(0)
        """float64 [L], the last measured update ratio of each layer; NaN where none was measured yet."""
        self.data_rms: FloatArray = np.empty(0)
        """float64 [L], the last root mean square of the data that each layer was given; NaN where none was seen."""
        self.broken_at = -1
        """The first step at which parameters were NaN or inf, by the step before, as far as is known; -1 of none."""
        self.half = False
        """Whether gradients were computed in float16, as far as is known."""
        self.progress = Progress()
        self._usual: tuple[tuple[int, int], Usual] | None = None
        """What was asked for last, of how many steps and after how many; several rules ask for the same."""
        self._just_come: Coming | None = None
        self._start, self._end = 0, 0
        self._allocate((), 0)

    @classmethod
    def from_grad_norms(cls, norms: Mapping[str, Sequence[float | None]] | None = None, /, **layers: Any) -> History:
        """A history made by hand, for tests and examples.

        Args:
            norms: gradient norms of each layer, all of one length; None in a list stands for "no gradient".
            layers: the same as keywords.

        Raises:
            TypeError: when a column is no list.
            ValueError: when the lists differ in length.
        """
        columns = {**(norms or {}), **layers}
        for name, column in columns.items():
            if not hasattr(column, "__len__"):
                raise TypeError(f"from_grad_norms: {name} must be a list of norms, got {column!r}")
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"from_grad_norms: every layer needs as many steps as the others, got {lengths}")
        history = cls(window=max([*lengths.values(), 1]))
        for step, row in enumerate(zip(*columns.values())):
            history.append(_stats(step, tuple(columns), row))
        return history

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def now(self) -> StepStats:
        """The latest step; ValueError before there is one."""
        if self.latest is None:
            raise ValueError("History: no step was appended yet")
        return self.latest

    @property
    def just_come(self) -> Coming:
        """The latest step as it was before it was taken in; several rules ask for it."""
        if self._just_come is None or self._just_come.count != self.count - 1:
            self._just_come = Coming.of([self.now], self.count - 1)
        return self._just_come

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the L layers of the latest step."""
        return self._layers

    @property
    def steps(self) -> IntArray:
        """int64 [T], the steps kept."""
        return self._steps[self._start : self._end]

    @property
    def grad_norm(self) -> FloatArray:
        """float64 [T, L], NaN and inf as measured, 0 where there was no gradient."""
        return self._grad_norm[self._start : self._end]

    @property
    def has_grad(self) -> BoolArray:
        """bool [T, L]."""
        return self._has_grad[self._start : self._end]

    @property
    def total_norm(self) -> FloatArray:
        """float64 [T]."""
        return self._total_norm[self._start : self._end]

    @property
    def total_update(self) -> FloatArray:
        """float64 [T], ``|step| / |parameters|`` made by the step before; NaN where it was not measured."""
        return self._total_update[self._start : self._end]

    @property
    def skipped(self) -> BoolArray:
        """bool [T], the steps that a gradient scaler skipped."""
        return self._skipped[self._start : self._end]

    def append(self, stats: StepStats) -> None:
        """Add one step. A layer that is new has no gradient in the steps before; a layer that is gone is dropped."""
        if stats.layers is not self._layers and stats.layers != self._layers:
            self._change_layers(stats.layers)
        if self._end == len(self._steps):
            self._move_to_front()
        if not self.count:
            self.first = stats
        i = self._end
        self._steps[i] = stats.step
        self._grad_norm[i] = stats.grad_norm
        self._has_grad[i] = stats.has_grad
        self._total_norm[i] = stats.total_norm
        self._total_update[i] = or_nan(stats.total_update)
        self._skipped[i] = stats.skipped
        self._end += 1
        self._start = max(self._start, self._end - self.window)
        self.count += 1
        self.skipped_count += stats.skipped
        self.latest = stats
        if stats.half is not None:
            self.half = stats.half
        if stats.output_gradient is not None or stats.output_error is not None:
            self.progress.look(stats, self.count)
        if stats.broken and self.broken_at < 0:
            self.broken_at = stats.step
        if stats.update_ratio is not None:
            self.update_ratio = np.where(np.isnan(stats.update_ratio), self.update_ratio, stats.update_ratio)
        if stats.data_rms is not None:
            self.data_rms = np.where(np.isnan(stats.data_rms), self.data_rms, stats.data_rms)

    def before_latest(self, steps: int) -> tuple[FloatArray, BoolArray]:
        """Norms and finite-and-present mask, both [T', L], of up to ``steps`` steps before the latest one."""
        rows = slice(max(self._start, self._end - 1 - steps), max(self._start, self._end - 1))
        norms = self._grad_norm[rows]
        return norms, self._has_grad[rows] & np.isfinite(norms)

    def usual(self, steps: int) -> Usual:
        """What the layers' norms were like over up to ``steps`` steps before the latest one."""
        asked = (self.count, steps)
        if self._usual is None or self._usual[0] != asked:
            norms, present = self.before_latest(steps)
            present &= norms > 0
            logs = np.log(np.where(present, norms, 1.0))
            level = finite_median(logs, present)
            spread = MAD_TO_STD * finite_median(np.abs(logs - level), present)
            self._usual = asked, Usual(level, spread, present.sum(axis=0))
        return self._usual[1]

    def median(self) -> FloatArray:
        """float64 [L], median norm of each layer over its finite steps; NaN for a layer without any."""
        return finite_median(self.grad_norm, self.has_grad)

    def up_to(self, count: int) -> History:
        """The history as it was when ``count`` steps had been appended; shares the arrays, copies nothing."""
        if count == self.count:
            return self
        then = object.__new__(History)
        then.__dict__.update(self.__dict__)
        then._end = self._end - (self.count - count)
        then.count = count
        i = then._end - 1
        row = (self._grad_norm[i], self._has_grad[i], float(self._total_norm[i]))
        then.progress = Progress()  # what was known of it then is not
        moved = None if np.isnan(self._total_update[i]) else float(self._total_update[i])
        skipped = bool(self._skipped[i])
        then.latest = StepStats(int(self._steps[i]), self._layers, *row, total_update=moved, skipped=skipped)
        return then

    def state_dict(self) -> dict[str, Any]:
        """Arrays and plain types that :meth:`load_state_dict` takes back."""
        return {
            "count": self.count,
            "skipped_count": self.skipped_count,
            "layers": list(self._layers),
            "steps": self.steps.copy(),
            "grad_norm": self.grad_norm.copy(),
            "has_grad": self.has_grad.copy(),
            "total_norm": self.total_norm.copy(),
            "total_update": self.total_update.copy(),
            "skipped": self.skipped.copy(),
            "update_ratio": self.update_ratio.copy(),
            "data_rms": self.data_rms.copy(),
            "broken_at": self.broken_at,
            "half": self.half,
            "progress": self.progress.state_dict(),
            "first": self.first and to_state(self.first, without="histogram"),  # which would be most of a checkpoint
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; of a longer history the newest steps are kept."""
        self.latest = None
        self._allocate(tuple(state["layers"]), 0)
        columns = [state[name] for name in ("steps", "grad_norm", "has_grad", "total_norm", "skipped")]
        for step, norms, has_grad, total, skipped in list(zip(*columns))[-self.window :]:
            row = (np.asarray(norms), np.asarray(has_grad), float(total))
            self.append(StepStats(int(step), self._layers, *row, skipped=bool(skipped)))
        self._total_update[self._start : self._end] = state["total_update"][len(state["total_update"]) - len(self) :]
        self.first = from_state(StepStats, state["first"]) if state["first"] else None
        self.update_ratio = np.array(state["update_ratio"], dtype=np.float64)
        self.data_rms = np.array(state["data_rms"], dtype=np.float64)
        self.broken_at = int(state["broken_at"])
        self.half = bool(state["half"])
        self.progress.load_state_dict(state["progress"])
        self.count, self.skipped_count = int(state["count"]), int(state["skipped_count"])

    def _allocate(self, layers: tuple[str, ...], rows: int) -> None:
        self._usual = self._just_come = None
        size = 2 * self.window
        self._steps: IntArray = np.zeros(size, np.int64)
        self._total_norm: FloatArray = np.zeros(size)
        self._total_update: FloatArray = np.full(size, np.nan)
        self._skipped: BoolArray = np.zeros(size, np.bool_)
        self._grad_norm: FloatArray = np.zeros((size, len(layers)))
        self._has_grad: BoolArray = np.zeros((size, len(layers)), np.bool_)
        self.update_ratio, self.data_rms = np.full((2, len(layers)), np.nan)
        self._start, self._end = 0, rows
        self._layers = layers  # last: when Ctrl-C comes before this, the next step begins again

    def _change_layers(self, layers: tuple[str, ...]) -> None:
        old, rows = self.state_dict(), len(self)
        self._allocate(layers, rows)
        self._steps[:rows], self._total_norm[:rows] = old["steps"], old["total_norm"]
        self._total_update[:rows], self._skipped[:rows] = old["total_update"], old["skipped"]
        column = {name: i for i, name in enumerate(old["layers"])}
        for i, name in enumerate(layers):
            if name in column:
                self._grad_norm[:rows, i] = old["grad_norm"][:, column[name]]
                self._has_grad[:rows, i] = old["has_grad"][:, column[name]]
                self.update_ratio[i] = old["update_ratio"][column[name]]
                self.data_rms[i] = old["data_rms"][column[name]]

    def _move_to_front(self) -> None:
        kept = slice(self._end - self.window, self._end)
        of_steps = (self._steps, self._total_norm, self._total_update, self._skipped)
        for array in (*of_steps, self._grad_norm, self._has_grad):
            array[: self.window] = array[kept]
        self._start, self._end = 0, self.window


def finite_median(norms: FloatArray, present: BoolArray) -> FloatArray:
    """Median over the rows of ``norms`` [T, L] that are present and finite; NaN for a column without any.

    >>> finite_median(np.array([[1.0], [np.inf], [3.0]]), np.ones((3, 1), bool)).tolist()
    [2.0]
    """
    known = present & np.isfinite(norms)
    if len(norms) and known.all():  # nearly always, and a third of the cost
        ordered, last = np.sort(norms, axis=0), len(norms) - 1
        median: FloatArray = (ordered[last // 2] + ordered[len(norms) // 2]) / 2
        return median
    kept = np.sort(np.where(known, norms, np.nan), axis=0)  # NaN sorts last
    counts = len(kept) - np.isnan(kept).sum(axis=0)
    if not counts.any():
        return np.full(kept.shape[1], np.nan)
    columns = np.arange(kept.shape[1])
    upper = np.minimum(counts // 2, len(kept) - 1)
    middle: FloatArray = (kept[np.maximum(counts - 1, 0) // 2, columns] + kept[upper, columns]) / 2
    return middle


def _stats(step: int, layers: tuple[str, ...], row: Sequence[float | None]) -> StepStats:
    has_grad = np.array([value is not None for value in row])
    norms = np.array([0.0 if value is None else float(value) for value in row])
    with np.errstate(over="ignore"):
        total = float(np.sqrt(np.sum(norms**2)))
    return StepStats(step, layers, norms, has_grad, total)
