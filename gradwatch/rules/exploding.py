"""Exploding: a layer's gradient is far above what it was, or so large that the weights cannot follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradwatch.coming import Coming
from gradwatch.history import EARLY, History
from gradwatch.patterns import PerLayer, check_number
from gradwatch.progress import LITTLE, NOTHING
from gradwatch.records import FloatArray, Severity
from gradwatch.rules.base import Judgement, LayerRule, goes_through_time, is_shallow, share_of
from gradwatch.rules.baseline import NOISE, Baseline
from gradwatch.rules.state import LayerState, ModelState
from gradwatch.rules.swelling import LARGE, Swelling


@dataclass
class Exploding(LayerRule):
    """A layer's gradient norm stays above an absolute limit, or far above its own baseline.

    The absolute limit does not hold for a layer whose weights were measured to move little, up to ten times the norm at
    which they did: a loss in large units, or an optimizer that normalises, makes large gradients harmless, but where a
    cross entropy has taught nothing. Up to ``threshold`` times the outputs' gradient at the first steps it is a
    WARNING, since a squared error of targets in large units has such gradients; of an absolute error, which does not
    tell its units, it is one behind the first steps. So is growth alone, since a network that leaves a plateau grows
    too. Both are an ERROR once it is seen that nothing has been learned, and a norm of 1e18, whose square overflows, is
    one in any units. One high step is a :class:`~gradwatch.rules.Spike`.

    Told at once is a large gradient that made a step as large as the weights, and after ``patience`` looks a signal
    that from the start grows from layer to layer beyond all measure, which shows in the gradients whatever the loss:
    those of weights are those of biases times the layer's input. Less is enough where it is seen later on that little
    or nothing has been learned since (:class:`~gradwatch.progress.Progress`): calm steps then are too small for what
    there is to undo. Of a single layer only growth counts: there large gradients and steps lead to large weights where
    the targets are large.

    Args:
        threshold: absolute limit of the norm.
        step_norm: limit of the total norm of a step that changed the weights by more than ``step_update``.
        step_update: limit of ``|step| / |weights|`` over all layers.
        start_update: limit of ``|step| / |weights|`` over all layers of one of the first steps, in a run that began
            with a large gradient and has learned nothing since.
        first_norm: least ratio of the total norm of the first step to the usual one, for that; half of it where a
            layer goes through time and little has been learned, whatever the size of the steps.
        signal: limit of the last layer's input, where it grew by a tenth of that since the first one.
        calm_update: the absolute limit is for layers whose update ratio ``|step| / |weights|`` exceeds this, or is
            not known.
        growth: limit of the norm, relative to the layer's median over the ``window`` steps before.
        above_all: what grows so much must also exceed the largest median of any layer by this factor, and of a cross
            entropy 50 times its gradient at the outputs at first.
        window: steps in the baseline.
        patience: steps in a row before the alert.
        recovery: steps in a row below half the limit before the episode is over.
        warmup: steps that a layer needs for its baseline.

    ``threshold`` and ``growth`` are a number, or a number per pattern of layer names: ``{"encoder.*": 1e4}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> rule = Exploding(patience=2)
        >>> for alert in rule.check(History.from_grad_norms(fc=[1.0, 5e3, 2e5], out=[1.0, 1.0, 1.0])):
        ...     print(alert.message)
        fc: gradient norm 2e+05 stayed above 1e+03 for 2 steps

    Source: Pascanu, Mikolov and Bengio, ICML 2013, section 2.
    """

    name: ClassVar[str] = "exploding"
    looks_at: ClassVar[tuple[str, ...]] = ("total_update", "input_size", "output_error")
    severity: ClassVar[Severity] = Severity.ERROR
    follows: ClassVar[tuple[str, ...]] = (
        "loss_mismatch",
        "not_zeroed",
        "overflow",
        "underflow",
        "update_ratio",
        "unstable",
    )

    threshold: PerLayer = 1e3
    # The fixed limit that separated published fault sets without a false alarm; healthy exceptions move calmly.
    step_norm: float = 50.0
    # Between 13 and 140, which steps too large by their learning rate and by their gradient had in docs/detection.md.
    step_update: float = 0.5
    start_update: float = 0.15
    # A recurrent or deep network has forgotten by then what it was initialised to: UpdateRatio's ``again``.
    first_norm: float = 40.0
    # Between 25 to 34, of learning rates that are too high whatever the gradient, and 43 to 1e4.
    signal: float = 1e4
    # Inputs of a layer have norms of 1 to 30 in healthy networks of any depth.
    calm_update: PerLayer = 0.3
    # Healthy training moves weights by about 1e-3 of their size a step; Adam's first ones small layers by 0.2.
    growth: PerLayer = 100.0
    # Normal noise of a gradient norm is within a factor of 10, a hundredfold rise that lasts is not noise.
    above_all: float = 10.0
    # A layer that grows a hundredfold to what others have anyway is waking up.
    window: int = 100
    patience: int = 2
    # One high step is a spike; a run that explodes reaches NaN within a handful of steps.
    recovery: int = 5
    warmup: int = 20

    def __post_init__(self) -> None:
        self._check_limit("threshold", above=0)
        for argument in ("step_norm", "step_update", "start_update", "first_norm", "signal", "above_all"):
            check_number(f"Exploding: {argument}", getattr(self, argument), above=0)
        self._check_limit("calm_update", at_least=0)
        self._check_limit("growth", above=1)
        self._check_window()
        super().__post_init__()

    def look(self, history: History) -> None:
        """How the inputs grow from layer to layer, and how large the steps are with which the run begins."""
        self._swelling.look(history, self.signal, self.step_update)
        if history.count <= EARLY:
            self._start["update"] = np.fmax(self._start["update"], history.total_update[-1])

    def calm_steps(self, history: History, coming: Coming) -> int:
        return self._baseline.calm_steps(coming) if self._update_ratio is history.update_ratio else 0

    def judge(self, history: History) -> Judgement:
        stats = history.now
        norm = stats.grad_norm
        present = stats.has_grad & np.isfinite(norm)
        self._baseline.update(history, frozen=self._episodes["open"] | (self._episodes["bad_steps"] > 0))
        absolute = self._absolute(history)
        highest = self.above_all * self._baseline["peak"] / NOISE  # what converges may well go back a part of the way
        grown = np.fmax(self.limit("growth", stats.layers) * self._baseline["level"], highest)
        grown = np.maximum(grown, self.above_all * np.fmax.reduce(self._baseline["level"], initial=0.0))
        if history.progress.of_classes:  # whose gradients are of this size as it leaves a plateau
            grown = np.maximum(grown, USUAL * history.progress.units)
        limit = self._baseline.ceiling = np.fmin(absolute, grown)
        self._update_ratio = history.update_ratio
        bad, good = present & (norm > limit), present & (norm < limit / 2)
        knows_units = history.count <= EARLY or not history.progress.has_one_size
        certain = bad & ((knows_units & (norm > absolute * max(history.progress.units, 1.0))) | (norm > SQUARES))
        self._certain["steps"] = np.where(certain, self._certain["steps"] + 1, 0)
        severity = None if certain.any() else Severity.WARNING
        later = self._swells if history.count <= EARLY else self._set_back
        for at_once in (self._threw_off(history), later(history)):
            if at_once is not None:
                self._episodes.hasten(at_once.bad, self.patience - 1)
                return at_once
        raised = self._certain["steps"] >= self.patience
        return Judgement(norm, limit, bad, good, severity=severity, certain=raised, worsens=NOTHING)

    def _absolute(self, history: History) -> FloatArray:
        """float64 [L], the absolute limit; of a layer that moves calmly ten times the largest of the norms by which it
        did, since the look before."""
        stats = history.now
        if stats.update_ratio is not None and len(history) > 1:
            norms = history.grad_norm[-1 - self.window : -1]
            norms = np.where(np.isfinite(norms), norms, 0.0).max(axis=0)
            self._moved["norm"] = np.where(np.isnan(stats.update_ratio), self._moved["norm"], norms)
        threshold = self.limit("threshold", stats.layers)
        if is_shallow(stats):
            return np.full(len(threshold), np.inf)
        in_vain = history.progress.of_classes and history.progress.is_none(but=NOTHING)
        calm = (history.update_ratio < self.limit("calm_update", stats.layers)) & (not in_vain)
        of_calm = np.minimum(self.above_all * self._moved["norm"], SQUARES)
        return np.where(calm, np.fmax(threshold, of_calm), threshold)

    def _threw_off(self, history: History) -> Judgement | None:
        """The step before, where its gradient was so large that it moved the weights by as much as they are."""
        stats, before = history.now, history.total_norm[-2:-1]
        if (
            is_shallow(stats)
            or not (stats.total_update or 0.0) > self.step_update
            or not before.size
            or not before[0] > self.step_norm
            or self._began_calmly(history)
        ):
            return None
        norm = history.grad_norm[-2]
        bad = history.has_grad[-2] & (norm > 0.1 * before[0])
        says = NORM + f"made a step of {share_of(stats.total_update or 0.0)} the weights' size"
        return Judgement(norm, np.full(len(norm), self.step_norm), bad, good=np.zeros(len(norm), bool), says=says)

    def _began_calmly(self, history: History) -> bool:
        """Whether the gradient was fine before the first step: then it is the steps that are too large."""
        first = history.first
        return first is not None and first.total_norm < self.step_norm / 2

    def _swells(self, history: History) -> Judgement | None:
        """A forward signal that from the start grows beyond all measure."""
        if history.now.input_size is None or self._swelling["looks"] < self.patience:
            return None
        return self._by_inputs(history, self.signal)

    def _set_back(self, history: History) -> Judgement | None:
        """What began too large, where it is found later that hardly anything was learned from there; once in a run."""
        stats, swelling, nothing, found = history.now, self._swelling, history.progress.is_none, None
        if stats.output_error is None or self._start["told"] or is_shallow(stats):
            return None
        if stats.input_size is not None and swelling["large"] >= self.patience and nothing(but=LITTLE):
            found = self._by_inputs(history, LARGE)
        if found is None and goes_through_time(stats) and nothing(but=LITTLE):
            found = self._by_first_norm(history, self.first_norm / 2)
        if found is None and self._start["update"] > self.start_update and nothing(but=NEXT_TO_NOTHING):
            found = self._by_first_norm(history, self.first_norm)
        self._start["told"] = found is not None
        return found

    def _by_inputs(self, history: History, size: float) -> Judgement | None:
        stats, sizes = history.now, self._swelling.sizes
        bad = self._swelling.layers_above(np.sqrt(size), stats)
        if not bad.any():
            return None
        says = NORM + f"comes from an input of norm {sizes[-1]:.3g} of the last layer, {sizes[0]:.3g} of the first"
        late = history.count > EARLY
        says += f"; {history.progress.in_words}" * late
        of_data = sizes[-1] <= sizes[0]  # by small steps it may get there yet
        severity = Severity.WARNING if late and of_data and self._start["update"] < SMALL else None
        none, of_all = np.zeros(len(bad), bool), (stats.grad_norm, np.full(len(bad), size))
        return Judgement(*of_all, bad, good=none, says=says, severity=severity, worsens=NOTHING)

    def _by_first_norm(self, history: History, factor: float) -> Judgement | None:
        stats, first, total = history.now, history.first, history.total_norm[-EARLY:]
        total = total[np.isfinite(total)]
        usual = np.median(total) if len(total) else np.nan
        if first is None or not first.total_norm > factor * usual:
            return None
        moved = self._start["update"]
        says = NORM + f"of all layers at the first step was {first.total_norm / usual:.3g} times the usual one"
        says += f", and one of the first steps moved the weights by {moved:.1%} of their size" * (moved > 0)
        says += f"; {history.progress.in_words}"
        of_all = first.total_norm * np.ones(len(stats.layers)), np.full(len(stats.layers), factor * usual)
        return Judgement(*of_all, stats.has_grad, good=~stats.has_grad, says=says)

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient norm {value:.3g} stayed above {threshold:.3g} for {self.patience} steps"

    def reset(self) -> None:
        super().reset()
        self._baseline = self._remembered["baseline"] = Baseline(self.window, self.warmup)
        self._certain = self._remembered["certain"] = LayerState(steps=0)
        self._moved = self._remembered["moved"] = LayerState(norm=np.nan)
        self._swelling = self._remembered["swelling"] = Swelling()
        self._start = self._remembered["start"] = ModelState(update=0.0, told=False)
        self._update_ratio = np.empty(0)  # that of the history by which the ceiling was found; a new one is a new array


NORM = "gradient norm {value:.3g} "

SQUARES = 1e18
"""Norm of which the square is near the end of float32, in whatever units: Adam divides by the root of that, inf, and no
weight moves any more."""

USUAL = 50.0
"""Times what a cross entropy asks of the outputs at first, up to which a layer's gradient norm is usual."""

SMALL = 0.03
"""``|step| / |parameters|`` up to which none of the first steps throws the weights off."""

NEXT_TO_NOTHING = 0.85
"""Share of the outputs' error that is left of a run that a first step has thrown off."""
