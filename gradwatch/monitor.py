"""Monitor: owns the state and the order measure -> check -> clip -> diagnose -> write."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch import clipping as clipping_policies
from gradwatch import diagnosis
from gradwatch import rules as default_rules
from gradwatch import sinks as default_sinks
from gradwatch.alert_log import AlertLog
from gradwatch.clipping.scale import scale_
from gradwatch.faults import DROPPED, Faults
from gradwatch.history import History
from gradwatch.host_copy import HostCopy
from gradwatch.layers import Gradients, LayerTable
from gradwatch.patterns import check_whole_number
from gradwatch.protocols import ClipPolicy, Rule, Sink
from gradwatch.records import Alert, ClipRecord, Diagnosis, FloatArray, Layer, Report, Severity, StepStats
from gradwatch.sampled import ParameterSample, SampledStats, sampled_stats
from gradwatch.stats import Measured, measure, per_layer
from gradwatch.verdict import judge

CAPTURE = "the capture of gradients"
FAILED = object()


class Monitor:
    """Measures every layer's gradient norm at every optimizer step, raises alerts, clips on request, writes to sinks.

    Call :meth:`step` when the gradients of a step are complete: after accumulation and unscaling, before the
    optimizer's step and before any clipping of your own. Training is never changed (but by ``clip``), nor stopped: what
    fails in the monitor is switched off after one warning.

    Args:
        model: the module to watch.
        optimizer: look only at the parameters that it updates, as when two optimizers share a model.
        rules: what to check, :func:`gradwatch.rules.default` by default; ``()`` for none.
        clip: a policy of :mod:`gradwatch.clipping`; none by default.
        sinks: where reports go, the Console by default; ``()`` for nowhere.
        every_n_steps: record every n-th step. With ``clip`` every step is measured and clipped all the same.
        histogram_every_n_steps: take the dearer statistics (histograms, zeros, parameter norms, update ratios) at every
            n-th step, 0 for never.
        granularity: "layer", a module's own parameters together, or "parameter".
        include: patterns of the layer names to watch, as ``"encoder.*"``; all by default.
        exclude: patterns of the layer names to leave out.
        diagnose: look for causes when there are alerts.
        strict: raise what fails in the monitor, for tests and continuous integration.

    Raises:
        TypeError: when an argument has the wrong type.
        ValueError: when an argument is out of range, a pattern matches no layer, the model has no parameters or the
            optimizer shares none with it.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = Monitor(model, clip=clipping_policies.GlobalNorm(max_norm=0.1), sinks=())
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(2, 4)).square().mean().add(1).backward()
        ...     monitor.step()
        ...     optimizer.step()
        >>> monitor.history.grad_norm.shape  # steps, layers
        (3, 2)
        >>> print(monitor.report())
        Verdict   healthy: 3 steps, 2 layers, no alert
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        rules: Iterable[Rule] | None = None,
        clip: ClipPolicy | None = None,
        sinks: Iterable[Sink] | None = None,
        every_n_steps: int = 1,
        histogram_every_n_steps: int = 100,
        granularity: str = "layer",
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        diagnose: bool = True,
        strict: bool = False,
    ) -> None:
        check_whole_number("every_n_steps", every_n_steps, at_least=1)
        check_whole_number("histogram_every_n_steps", histogram_every_n_steps, at_least=0)
        self._table = LayerTable(model, granularity, include, exclude)
        self._optimizer = optimizer
        if optimizer is not None:
            _check_optimizer(optimizer, model, self._table)
        self._rules = default_rules.fresh(
            check_parts("rules", default_rules.default() if rules is None else rules, "check")
        )
        default_rules.check(self._rules, self._table.names)
        self._clip = clip if clip is None else check_parts("clip", [clip], "clip_")[0]
        self._sinks = check_parts("sinks", [default_sinks.Console()] if sinks is None else sinks, "write", "close")
        self._causes = list(diagnosis.default()) if diagnose else []
        self._every_n_steps = every_n_steps
        self._histogram_every_n_steps = histogram_every_n_steps
        self._faults = Faults(strict)
        self._on_close: list[Callable[[], None]] = []

        self.history = History()
        self._log = AlertLog()
        self.closed = False
        self.stepped = False
        """Set by :meth:`step`, for a hook that would measure the same step again; the hook clears it."""
        self.recording = True
        """Whether :meth:`step` records; a hook clears it while a closure is evaluated again."""
        self._next_step = 0
        self._in_flight: deque[_InFlight] = deque()
        self._sample: ParameterSample | None = None
        self._sampled_period = -1
        self._update_ratio: FloatArray | None = None
        self._last_clip: ClipRecord | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers watched, in the model's order."""
        return self._table.layers

    @property
    def alerts(self) -> list[Alert]:
        """Every alert so far, oldest first."""
        return self._log.alerts

    def step(self, step: int | None = None) -> None:
        """Measure, check, clip and record the gradients as they are now; between sampled steps it waits for no device.

        Args:
            step: the number to record, one more than the last by default.

        Raises:
            TypeError: when ``step`` is no whole number.
        """
        self.stepped = True
        self.observe(step, record=self.recording)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Record the step, then clip: in a loop it takes the place of ``torch.nn.utils.clip_grad_norm_``.

        Args:
            max_norm: the largest total L2 norm allowed.

        Returns:
            The total norm before clipping, 0-dim.

        Raises:
            ValueError: when ``max_norm`` is not above 0.
            TypeError: when ``max_norm`` is no number.
        """
        policy = clipping_policies.GlobalNorm(max_norm)
        self.stepped = True
        measured = self.observe(clip=policy, record=self.recording)
        if measured is None:  # the monitor is closed or has failed: the caller still relies on clipping
            return nn.utils.clip_grad_norm_(self._table.collect().parameters, max_norm)
        return measured.total_norm

    def observe(
        self,
        step: int | None = None,
        *,
        parameters: Iterable[Tensor] | None = None,
        clip: ClipPolicy | None = None,
        record: bool = True,
        scale: float | Tensor = 1.0,
        turn: int | None = None,
    ) -> Measured | None:
        """What :meth:`step` does, for the integrations that drive a monitor.

        Args:
            step: the number to record, one more than the last by default.
            parameters: look only at these; the optimizer's by default.
            clip: a policy for this step instead of the monitor's own.
            record: False to clip only, as when a closure is evaluated again.
            scale: what a GradScaler has multiplied the gradients by, where it has not been divided out.
            turn: the number that ``every_n_steps`` and ``histogram_every_n_steps`` count, ``step`` by default. Several
                optimizers in turn need one number per round: every second step may always be the same one's.
        """
        number = self._next_step if step is None else operator.index(step)
        if record:
            self._next_step = number + 1
            self._measure_update()
        clip = clip or self._clip
        turn = number if turn is None else turn
        due = record and turn % self._every_n_steps == 0
        sample = due and self._sample_is_due(turn)
        if self.closed or not (due or clip) or (clip is None and self._faults.exhausted(CAPTURE)):
            return None
        given = (number, parameters, clip, scale, due, sample)
        consequence = f"this step is not recorded{' nor clipped' if clip else ''}"
        measured = self._faults.run(CAPTURE, consequence, self._capture, *given, otherwise=None)
        self._receive(wait=False)
        return measured

    def flush(self) -> None:
        """Take in every measurement that is still on its way from the device."""
        self._receive(wait=True)

    def close(self) -> None:
        """Flush, close the sinks and remove what drives this monitor. May be called more than once."""
        if self.closed:
            return
        self.closed = True
        with ExitStack() as stack:  # every sink is closed, whatever the others raise with strict=True
            for sink in self._sinks:
                part, consequence = f"sink {_name(sink)}", "what it had not written is lost"
                stack.callback(self._faults.run, part, consequence, sink.close, otherwise=None)
            for undo in self._on_close:
                undo()
            self.flush()
        self._on_close.clear()
        self._optimizer = self._sample = None  # a monitor kept for its history keeps no parameters alive

    def on_close(self, undo: Callable[[], None]) -> None:
        """Have ``undo`` called when the monitor is closed, as to remove hooks."""
        self._on_close.append(undo)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def report(self) -> Report:
        """What is known now: verdict, why, evidence and what to do next."""
        self.flush()
        verdict, severity = self._judge()
        diagnoses = self._diagnose([alert for alert in self.alerts if alert.severity > Severity.INFO])
        return Report(verdict, severity, tuple(self.alerts), diagnoses, self.history.latest, self._last_clip)

    def state_dict(self) -> dict[str, Any]:
        """The state in plain types and tensors, so that ``torch.load(..., weights_only=True)`` takes it."""
        self.flush()
        state = {
            "next_step": self._next_step,
            "sampled_period": self._sampled_period,
            "history": self.history.state_dict(),
            "log": self._log.state_dict(),
            "rules": {name: part.state_dict() for name, part in _stateful(self._rules)},
            "clip": {name: part.state_dict() for name, part in _stateful([self._clip])},
        }
        plain: dict[str, Any] = _convert(state, np.ndarray, torch.from_numpy)
        return plain

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`: baselines, episodes and step numbers go on where they were.

        Raises:
            ValueError: when ``state`` is not what :meth:`state_dict` returned.
        """
        if not isinstance(state, Mapping) or not {"next_step", "history", "log", "rules"} <= set(state):
            raise ValueError(f"state must be what Monitor.state_dict() returned, got {_short(state)}")
        state = _convert(state, Tensor, lambda tensor: tensor.cpu().numpy())
        self._next_step = int(state["next_step"])
        self._sampled_period = int(state["sampled_period"])
        self.history.load_state_dict(state["history"])
        self._log.load_state_dict(state["log"])
        for kind, parts in (("rules", self._rules), ("clip", [self._clip])):
            for name, part in _stateful(parts):
                if name in state[kind]:
                    part.load_state_dict(state[kind][name])

    # -- left of the wall: tensors, on their device, nothing waits ---------------------------------------------------

    def _capture(
        self,
        step: int,
        parameters: Iterable[Tensor] | None,
        clip: ClipPolicy | None,
        scale: float | Tensor,
        due: bool,
        sample: bool,
    ) -> Measured:
        if parameters is None and self._optimizer is not None:
            parameters = parameters_of(self._optimizer)
        found = self._table.collect(parameters, everything=clip is not None)
        measured = measure(found.values)
        factor = None if isinstance(scale, float) and scale == 1.0 else torch.as_tensor(scale)
        if factor is not None:
            measured = Measured(measured.norms / factor, measured.total_norm / factor)
        sampled = self._take_sample(found.watched(), factor) if sample else None
        record = None if clip is None else self._clip_gradients(clip, found.values, measured, factor)
        if due:
            copy = HostCopy(
                measured.norms if record is None else torch.cat([measured.norms, _numbers(record, measured)])
            )
            update, self._update_ratio = self._update_ratio, None
            self._in_flight.append(_InFlight(step, self._table.names, found.rows, copy, record, sampled, update))
        return measured

    def _clip_gradients(
        self, clip: ClipPolicy, gradients: list[Tensor], measured: Measured, factor: Tensor | None
    ) -> ClipRecord | None:
        part, consequence = f"clip {_name(clip)}", "this step is not clipped"
        return self._faults.run(part, consequence, _clip_unscaled, clip, gradients, measured, factor, otherwise=None)

    def _take_sample(self, found: Gradients, factor: Tensor | None) -> SampledStats | None:
        part, consequence = "the sampled statistics", "they are missing at this step"
        layers = len(self._table.names)
        if factor is not None:
            found = found._replace(values=[gradient.detach() / factor for gradient in found.values])
        self._sample = self._faults.run(part, consequence, ParameterSample, found, layers, otherwise=None)
        return self._faults.run(part, consequence, sampled_stats, found, layers, otherwise=None)

    def _measure_update(self) -> None:
        sample, self._sample = self._sample, None
        if sample is not None:
            part, consequence = "the update ratio", "it is missing at this step"
            self._update_ratio = self._faults.run(part, consequence, sample.update_ratio, otherwise=None)

    def _sample_is_due(self, turn: int) -> bool:
        """At each multiple of ``histogram_every_n_steps``, or at the first step recorded after it."""
        if not self._histogram_every_n_steps:
            return False
        period, rest = divmod(turn, self._histogram_every_n_steps)
        due = rest == 0 or period > self._sampled_period
        self._sampled_period = period
        return due

    # -- right of the wall: plain numbers ----------------------------------------------------------------------------

    def _receive(self, wait: bool) -> None:
        while self._in_flight and (wait or self._in_flight[0].copy.ready()):
            arrived = self._in_flight.popleft()
            part, consequence = "the record of a step", "this step is not recorded"
            self._faults.run(part, consequence, self._record, arrived, otherwise=None)

    def _record(self, arrived: _InFlight) -> None:
        numbers = arrived.copy.numpy()
        stats = _stats(arrived, numbers[: len(arrived.rows)])
        self.history.append(stats)
        self._last_clip = arrived.clip and _with_numbers(arrived.clip, numbers[len(arrived.rows) :])
        new = self._log.take(self._check())
        verdict, severity = self._judge()
        diagnoses = self._diagnose([alert for alert in new if alert.severity > Severity.INFO])
        report = Report(verdict, severity, tuple(new), diagnoses, stats, self._last_clip)
        for sink in list(self._sinks):
            result = self._faults.run(f"sink {_name(sink)}", DROPPED, sink.write, report, otherwise=FAILED)
            if result is FAILED:
                self._sinks.remove(sink)
                with suppress(Exception):
                    sink.close()

    def _check(self) -> list[tuple[Rule, list[Alert]]]:
        found = []
        for rule in list(self._rules):
            alerts = self._faults.run(f"rule {_name(rule)}", DROPPED, _checked, rule, self.history, otherwise=None)
            if alerts is None:
                self._rules.remove(rule)
            else:
                found.append((rule, alerts))
        return found

    def _judge(self) -> tuple[str, Severity]:
        return judge(self.history, self._log.ongoing(self._rules), self._log.counts, self._log.worst)

    def _diagnose(self, alerts: Sequence[Alert]) -> tuple[Diagnosis, ...]:
        if not alerts:
            return ()
        found: list[Diagnosis] = []
        for cause in list(self._causes):
            given = (self.history, None, alerts)
            result = self._faults.run(f"cause {_name(cause)}", DROPPED, cause.explain, *given, otherwise=FAILED)
            if result is FAILED:
                self._causes.remove(cause)
            elif isinstance(result, Diagnosis):
                found.append(result)
        return tuple(sorted(found, key=lambda d: -d.confidence))


class _InFlight(NamedTuple):
    """One step's measurement on its way to the host."""

    step: int
    layers: tuple[str, ...]
    rows: list[int]
    copy: HostCopy
    clip: ClipRecord | None
    sampled: SampledStats | None
    update: FloatArray | None


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters that ``optimizer`` updates now: groups may be added while training runs."""
    return [p for group in optimizer.param_groups for p in group["params"]]


@torch.no_grad()
def _clip_unscaled(
    clip: ClipPolicy, gradients: Sequence[Tensor], measured: Measured, factor: Tensor | None
) -> ClipRecord:
    """A policy's limits are meant for the true gradients, so a GradScaler's factor is taken out for it and put back."""
    if factor is None:
        return clip.clip_(gradients, measured)
    scale_(gradients, 1 / factor)
    try:
        return clip.clip_(gradients, measured)
    finally:
        scale_(gradients, factor)


def _stats(arrived: _InFlight, norms: FloatArray) -> StepStats:
    layers = len(arrived.layers)
    norm, has_grad = per_layer(norms, arrived.rows, layers)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.sqrt(np.sum(norm * norm)))
    update = arrived.update
    if update is not None and len(update) != layers:  # the layers changed since the sample was taken
        update = None
    sampled = {} if arrived.sampled is None else arrived.sampled._asdict()
    return StepStats(arrived.step, arrived.layers, norm, has_grad, total, update_ratio=update, **sampled)


def _numbers(record: ClipRecord, measured: Measured) -> Tensor:
    """The numbers of ``record``, to go to the host with the norms: a clip policy leaves them on the device."""
    given = (record.norm_before, record.norm_after, record.coefficient)
    like = measured.norms
    return torch.stack([torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in given])


def _with_numbers(record: ClipRecord, numbers: FloatArray) -> ClipRecord:
    before, after, coefficient = numbers.tolist()
    return ClipRecord(record.policy, before, after, coefficient, float(record.threshold))


def _checked(rule: Rule, history: History) -> list[Alert]:
    """What ``rule`` finds. It may be a generator, which fails only when it is run through."""
    alerts = list(rule.check(history))
    for alert in alerts:
        if not isinstance(alert, Alert):
            raise TypeError(f"check() must give Alerts, got {alert!r}")
    return alerts


def _name(part: object) -> str:
    return type(part).__name__


def _stateful(parts: Iterable[object]) -> list[tuple[str, Any]]:
    """The parts that keep state, each with a name of its own: the class, numbered where it repeats."""
    names: list[str] = []
    found = []
    for part in parts:
        if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
            names.append(_name(part))
            found.append((f"{names[-1]}.{names.count(names[-1]) - 1}", part))
    return found


def _convert(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """``value`` with every object of type ``kind`` in it changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _convert(item, kind, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_convert(item, kind, change) for item in value]
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, table: LayerTable) -> None:
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    its = {id(p) for p in parameters_of(optimizer)}
    if not any(id(p) in its for p in model.parameters()):
        raise ValueError(
            f"optimizer: {type(optimizer).__name__} shares no parameter with model {type(model).__name__}; "
            "was the optimizer made before the model was moved, wrapped or replaced?"
        )
    if not its & table.watched_ids():
        raise ValueError("optimizer: it updates none of the layers that include and exclude leave to watch")


_EXAMPLES = {
    "rules": "gradwatch.rules.Vanishing()",
    "clip": "gradwatch.clipping.GlobalNorm(max_norm=1.0)",
    "sinks": "gradwatch.sinks.Console()",
}


def check_parts(argument: str, parts: Any, *methods: str) -> list[Any]:
    """``parts`` as a list; raises TypeError when one of them lacks one of ``methods``."""
    wanted = f"with {' and '.join(f'{method}()' for method in methods)}, such as {_EXAMPLES[argument]}"
    if not isinstance(parts, Iterable) or isinstance(parts, (str, Mapping)):
        raise TypeError(f"{argument} must be a list or tuple of objects {wanted}, got {parts!r}")
    for part in (found := list(parts)):
        if isinstance(part, type) or not all(callable(getattr(part, method, None)) for method in methods):
            raise TypeError(f"{argument} takes objects {wanted}, got {part!r}")
    return found
