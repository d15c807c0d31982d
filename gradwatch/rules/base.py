"""StepRule and LayerRule: what the built-in rules share, so that each of them is only its judgement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from gradwatch.coming import Coming
from gradwatch.history import History
from gradwatch.patterns import check_patterns, check_per_layer, check_whole_number, per_layer
from gradwatch.progress import NOTHING
from gradwatch.records import Alert, BoolArray, FloatArray, IntArray, Severity, StepStats, or_nan
from gradwatch.rules.episodes import NONE, Episodes
from gradwatch.rules.state import LayerState, ModelState
from gradwatch.verdict import SHOWN, called, counted


@dataclass(frozen=True)
class Judgement:
    """One step judged, arrays [L]. A layer may be neither bad nor good: in between the two limits."""

    value: FloatArray
    threshold: FloatArray
    bad: BoolArray
    good: BoolArray
    step: IntArray | None = None
    """int64 [L], when it happened, where that was not the latest step."""
    known: BoolArray | None = None
    """bool [L], the layers that could be judged; by default those with a finite gradient."""
    absent: BoolArray | None = None
    """bool [L], the layers that may be gone, whose episodes end in time; by default those without a gradient."""
    severity: Severity | None = None
    """Of the episodes that open at this step, where it is not the rule's."""
    certain: BoolArray | None = None
    """bool [L], the layers whose open WARNING has become an ERROR; it is told again."""
    says: str = ""
    """What happened, with ``{value:.3g}`` or the like in it, where it is not what the rule usually says."""
    worsens: float = 0.0
    """Share of the outputs' error that is left where an open WARNING becomes one, as nothing was learned since it was
    told; of less than NOTHING where that also stands still, or so much is left. 0 where none ever does."""


class StepRule(ABC):
    """A rule with a memory, that takes in every step of a history once.

    So one check of a long history equals a check after each step. A step that a gradient scaler skips is left out: its
    overflow says something about the loss scale, and nothing about training.
    """

    name: ClassVar[str]
    takes_skipped: ClassVar[bool] = False
    """True: steps that a gradient scaler skips are judged like the others."""
    follows: ClassVar[tuple[str, ...]] = ()
    """Names of the rules of whose earlier findings these may come: units die of a step that was too large."""
    others_follow: ClassVar[Severity] = Severity.ERROR
    """The least severity of a finding that others may come of."""

    _seen: int

    def __post_init__(self) -> None:
        self.reset()

    # Annotated as in the protocol, to the word: LightningCLI accepts no other.
    def check(self, history: History) -> Iterable[Alert]:
        """The alerts of all steps of ``history`` that this rule has not seen yet."""
        if history.count == self._seen + 1:  # nearly always
            self._seen += 1
            return self._check_step(history)
        if history.count < self._seen:
            self.reset()
        first = max(self._seen, history.count - len(history))
        self._seen = history.count
        return [a for count in range(first, history.count) for a in self._check_step(history.up_to(count + 1))]

    def passes_over(self, history: History, coming: Coming) -> int:
        """How many of the ``coming`` steps, from the first on, this rule counts as seen and need not check.

        A monitor asks before ``history`` takes the first of them in. That is all a rule costs in a normal step.
        """
        if self._seen != coming.count:
            return 0
        calm = self.calm_steps(history, coming)
        self._seen += calm
        return calm

    def calm_steps(self, history: History, coming: Coming) -> int:
        """In how many of the ``coming`` steps, from the first on, a quick look tells that there is nothing to find.

        What a check of these would remember must be remembered here too.
        """
        return 0

    def _check_step(self, history: History) -> list[Alert]:
        skipped = history.latest is not None and history.latest.skipped
        return [] if skipped and not self.takes_skipped else self._check_latest(history)

    @abstractmethod
    def _check_latest(self, history: History) -> list[Alert]:
        """The alerts of the latest step of ``history``."""

    @property
    def open_layers(self) -> tuple[str, ...] | None:
        """Names of the layers of what was told and is going on, () of the whole model; None where nothing is."""
        return None

    def reset(self) -> None:
        """Forget every step seen."""
        self._seen = 0
        self._remembered: dict[str, LayerState | ModelState] = {}

    def state_dict(self) -> dict[str, Any]:
        """Arrays and plain types that :meth:`load_state_dict` takes back."""
        return {"seen": self._seen, **{name: part.state_dict() for name, part in self._remembered.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._seen = int(state["seen"])
        for name, part in self._remembered.items():
            part.load_state_dict(state[name])

    def _check_steps(self, argument: str, at_least: int) -> None:
        check_whole_number(f"{type(self).__name__}: {argument}", getattr(self, argument), at_least)

    def _check_limit(self, argument: str, **limits: float) -> None:
        check_per_layer(f"{type(self).__name__}: {argument}", getattr(self, argument), **limits)


class LayerRule(StepRule):
    """A rule that judges each layer at each step; episodes, alerts, state and validation are done here.

    A subclass is a dataclass with ``patience`` and ``recovery`` (in steps) and a judgement of one step.

    Example:
        >>> @dataclass
        ... class Huge(LayerRule):
        ...     name = "huge"
        ...     severity = Severity.WARNING
        ...     patience: int = 2
        ...     recovery: int = 1
        ...
        ...     def judge(self, history):
        ...         norm, limit = history.latest.grad_norm, np.full(len(history.layers), 10.0)
        ...         return Judgement(norm, limit, bad=norm > limit, good=norm <= limit)
        ...
        ...     def describe(self, value, threshold):
        ...         return f"gradient norm {value:g} is above {threshold:g}"
        >>> [alert.message for alert in Huge().check(History.from_grad_norms(fc=[1.0, 20.0, 30.0]))]
        ['fc: gradient norm 30 is above 10']
    """

    severity: ClassVar[Severity]
    of_model: ClassVar[bool] = False
    """True: what is found concerns the model as a whole, and is judged alike of every layer."""
    reports_recovery: ClassVar[bool] = True
    by_looks: ClassVar[bool] = False
    """True: nothing new is to be found at a step of which only the norms are known."""
    looks_at: ClassVar[tuple[str, ...]] = ()
    """Fields of StepStats that :meth:`judge` needs. Where none of them tells anything, it is left to the norms."""
    quantity: ClassVar[str] = "gradient norm"
    """What is judged, in the words of a recovery."""

    patience: int
    recovery: int

    def __post_init__(self) -> None:
        for argument in ("patience", "recovery"):
            self._check_steps(argument, at_least=1)
        super().__post_init__()

    def look(self, history: History) -> None:
        """Take in what a close look tells for later steps, once and before it is judged."""

    def sees(self, stats: StepStats) -> bool:
        """Whether a look at this step tells what :meth:`judge` needs."""
        return any(_tells(getattr(stats, name)) for name in self.looks_at)

    @abstractmethod
    def judge(self, history: History) -> Judgement:
        """Judge the latest step of ``history``."""

    def passes_over(self, history: History, coming: Coming) -> int:
        """None while a layer is in an episode, or on the way to one."""
        quiet = self._episodes.quiet and coming.layers is self._episodes.layers
        return super().passes_over(history, coming) if quiet else 0

    def calm_steps(self, history: History, coming: Coming) -> int:
        """All of them where nothing is found but ``by_looks``."""
        return len(coming) if self.by_looks else 0

    @abstractmethod
    def describe(self, value: float, threshold: float) -> str:
        """What happened to a layer, with the numbers: the alert's sentence after the layer's name."""

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise ValueError when the pattern of a threshold matches none of the layers."""
        for f in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, f.name)
            if isinstance(value, Mapping):
                check_patterns(f"{type(self).__name__}({f.name}=...)", value, names)

    def limit(self, argument: str, layers: tuple[str, ...]) -> FloatArray:
        """The threshold ``argument`` of each layer, float64 [L]; the default where no pattern matches."""
        known, limit = self._limits.get(argument, ((), None))
        if limit is None or (known is not layers and known != layers):
            limit = per_layer(getattr(self, argument), layers, default=getattr(type(self), argument))
            self._limits[argument] = (layers, limit)
        return limit

    def highest(self, argument: str) -> float:
        """The highest threshold ``argument`` that any layer may have."""
        value = getattr(self, argument)
        return float(max([getattr(type(self), argument), *value.values()]) if isinstance(value, Mapping) else value)

    @property
    def open_layers(self) -> tuple[str, ...] | None:
        if self._episodes.quiet or not self._episodes["open"].any():
            return None
        return () if self.of_model else tuple(self._episodes.layers[i] for i in np.flatnonzero(self._episodes["open"]))

    def reset(self) -> None:
        super().reset()
        self._episodes = self._remembered["episodes"] = Episodes()
        self._limits: dict[str, tuple[tuple[str, ...], FloatArray]] = {}

    def _check_window(self) -> None:
        """A baseline of ``window`` steps must be able to hold the ``warmup`` steps that it needs."""
        self._check_steps("window", at_least=1)
        self._check_steps("warmup", at_least=1)
        window, warmup = getattr(self, "window"), getattr(self, "warmup")  # noqa: B009
        if warmup > window:
            raise ValueError(f"{type(self).__name__}: warmup={warmup} must be at most window={window}")

    def _check_latest(self, history: History) -> list[Alert]:
        stats = history.now
        if stats.layers is not self._episodes.layers:
            self.align(stats.layers)
        if not stats.is_plain:
            self.look(history)
        norms_alone = self._episodes.quiet and not self.sees(stats)
        if norms_alone and (self.by_looks or self.calm_steps(history, history.just_come)):
            return []
        with np.errstate(over="ignore"):  # a limit beyond the largest float is inf, which nothing exceeds
            found = self.judge(history)
        if self._episodes.quiet and not found.bad.any():  # a normal step: there is nothing to count
            return []
        known = stats.has_grad & np.isfinite(stats.grad_norm) if found.known is None else found.known
        absent = ~stats.has_grad if found.absent is None else found.absent
        opened, closed = self._episodes.update(
            stats.step, found.bad, found.good, known, absent, self.patience, self.recovery
        )
        raised, left = self._raised(found, history)
        of_opened = self.severity if found.severity is None else found.severity
        self._episodes["warned"][opened] = of_opened is Severity.WARNING
        told = (opened, of_opened, ""), (raised, Severity.ERROR, left), (closed, Severity.INFO, "")
        return [
            self._alert(stats.step, stats.layers, found, indices.tolist(), severity, more)
            for indices, severity, more in told
            if len(indices) and (severity > Severity.INFO or self.reports_recovery)
        ]

    def align(self, layers: tuple[str, ...]) -> None:
        """Make what is remembered of each layer that of ``layers``."""
        for part in self._remembered.values():
            if isinstance(part, LayerState):
                part.align(layers)

    def _raised(self, found: Judgement, history: History) -> tuple[IntArray, str]:
        """The layers whose open WARNING has become an ERROR, and why, as the end of its message."""
        episodes, progress = self._episodes, history.progress
        warned = episodes["warned"] & episodes["open"] & found.bad
        if not warned.any():
            return NONE, ""
        little = 0 < found.worsens < NOTHING and progress.stands_still(but=found.worsens)
        nothing = bool(little or (found.worsens > 0 and progress.is_none(but=max(found.worsens, NOTHING))))
        fatal = nothing & (episodes["opened_at"] < progress.looked_at)
        raised = warned & (fatal if found.certain is None else fatal | found.certain)
        episodes["warned"] &= ~raised
        return np.flatnonzero(raised), f"; {progress.in_words}" * nothing

    def _alert(
        self, step: int, layers: tuple[str, ...], found: Judgement, indices: list[int], severity: Severity, more: str
    ) -> Alert:
        """One for the layers found at a step, with the numbers of the worst of them, which is named first."""
        with np.errstate(all="ignore"):
            excess = np.nan_to_num(np.abs(np.log(found.value[indices] / found.threshold[indices])), nan=np.inf)
        worst = indices[-1 - int(np.argmax(excess[::-1]))]  # of equals the one nearest to the output
        value, threshold = float(found.value[worst]), float(found.threshold[worst])
        if severity is Severity.INFO:
            steps = step - int(self._episodes["opened_at"][worst])
            text = f"recovered from {self.name} after {counted(steps, 'step')}, {self.quantity} now {value:.3g}"
        else:
            text = found.says.format(value=value) or self.describe(value, threshold)
            text += more * (more not in text)
        when = step if found.step is None else int(found.step[worst])
        if self.of_model:
            return Alert(when, self.name, None, severity, value, threshold, text)
        named = some_of([layers[worst], *(layers[i] for i in indices[::-1] if i != worst)])
        layer = layers[worst] if len(indices) == 1 else None
        every = () if len(indices) == 1 else tuple(layers[i] for i in indices)
        return Alert(when, self.name, layer, severity, value, threshold, f"{named}: {text}", layers=every)


def of_layers(told: FloatArray | None, stats: StepStats) -> FloatArray:
    """What a look told of each layer, float64 [L]; NaN where there was none.

    >>> of_layers(None, StepStats(0, ("a", "b"), np.ones(2), np.ones(2, bool), 1.0)).tolist()
    [nan, nan]
    """
    return np.full(len(stats.layers), np.nan) if told is None else told


def last_layer(stats: StepStats) -> BoolArray:
    """bool [L], the layer nearest to the loss: the one that was heard, else the last in the model with a gradient.

    >>> last_layer(StepStats(0, ("head", "body"), np.ones(2), np.ones(2, bool), 1.0, output_row=0.0)).tolist()
    [True, False]
    """
    heard = or_nan(stats.output_row)
    row = max(np.flatnonzero(stats.has_grad), default=-1) if np.isnan(heard) else heard
    last: BoolArray = np.arange(len(stats.layers)) == row
    return last


def are_tables(stats: StepStats) -> BoolArray | None:
    """bool [L], the layers of which this step touched a part, as the rows of an embedding; None where it is not known.

    >>> two = StepStats(0, ("table", "fc"), np.ones(2), np.ones(2, bool), 1.0, zero_fraction=np.array([0.9, 0.1]))
    >>> are_tables(two).tolist()
    [True, False]
    """
    return None if stats.zero_fraction is None else stats.zero_fraction > TABLE


TABLE = 0.5
"""Share of a layer's gradient that is exactly zero from which it is one; inputs that are blank half of the time are
rare."""


def _tells(value: FloatArray | BoolArray | float | None) -> bool:
    """Whether there is more to it than None, NaN, False or a count of 0.

    >>> [_tells(value) for value in (None, float("nan"), 0.0, 0, True)]
    [False, False, True, False, True]
    >>> [_tells(np.array(values)) for values in ([np.nan], [np.nan, 0.0], [False])]
    [False, True, False]
    """
    if isinstance(value, np.ndarray):
        return bool(np.logical_or.reduce(value if value.dtype == np.bool_ else value == value))
    return value == value if isinstance(value, float) else bool(value)


def is_shallow(stats: StepStats) -> bool:
    """Whether there is one layer to train, as in linear regression: large targets need large steps, and that is all."""
    return int(np.count_nonzero(stats.has_grad)) < 2


def goes_through_time(stats: StepStats) -> bool:
    """Whether a layer is applied at one time step after the other: unrolled, it is a deep network."""
    return stats.time_ratio is not None and not np.isnan(stats.time_ratio).all()


def share_of(ratio: float) -> str:
    """In words, also where it is no share any more.

    >>> share_of(0.63), share_of(126327632610.0)
    ('63% of', '1.3e+11 times')
    """
    return f"{ratio:.0%} of" if ratio < MANY_TIMES else f"{ratio:.2g} times"


MANY_TIMES = 10.0
"""From which a share in percent reads badly."""


def some_of(names: Sequence[str]) -> str:
    """A few names, and how many more there are.

    >>> some_of(["a", "b", "c", "d"])
    'a, b, c and 1 more layer'
    """
    more = f" and {counted(len(names) - SHOWN, 'more layer')}" if len(names) > SHOWN else ""
    return ", ".join(map(called, names[:SHOWN])) + more
