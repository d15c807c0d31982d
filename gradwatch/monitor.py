"""Monitor: owns the state and the order measure -> check -> clip -> diagnose -> write."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch import clipping as clipping_policies
from gradwatch import diagnosis
from gradwatch import rules as default_rules
from gradwatch import sinks as default_sinks
from gradwatch.clipping.global_norm import scale_
from gradwatch.faults import Faults
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
DROPPED = "it is dropped"
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
            _check_optimizer(optimizer, model)
        self._rules = check_parts("rules", default_rules.default() if rules is None else rules, "check")
        default_rules.check(self._rules, self._table.names)
        self._clip = clip if clip is None else check_parts("clip", [clip], "clip_")[0]
        self._sinks = check_parts("sinks", [default_sinks.Console()] if sinks is None else sinks, "write", "close")
        self._causes = list(diagnosis.default()) if diagnose else []
        self._every_n_steps = every_n_steps
        self._histogram_every_n_steps = histogram_every_n_steps
        self._faults = Faults(strict)
        self._on_close: list[Callable[[], None]] = []

        self.history = History()
        self.alerts: list[Alert] = []
        """Every alert so far, oldest first."""
        self.closed = False
        self.stepped = False
        """Set by :meth:`step`, for a hook that would measure the same step again; the hook clears it."""
        self._repeated: set[tuple[str, str | None]] = set()
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

    def step(self, step: int | None = None) -> None:
        """Measure, check, clip and record the gradients as they are now; waits for no device.

        Args:
            step: the number to record, one more than the last by default.
        """
        self.stepped = True
        self.observe(step)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Record the step, then clip: in a loop it takes the place of ``torch.nn.utils.clip_grad_norm_``.

        Args:
            max_norm: the largest total L2 norm allowed.

        Returns:
            The total norm before clipping, 0-dim, of the watched gradients.

        Raises:
            ValueError: when ``max_norm`` is not above 0.
        """
        policy = clipping_policies.GlobalNorm(max_norm)
        self.stepped = True
        measured = self.observe(clip=policy)
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
        number = self._next_step if step is None else int(step)
        if record:
            self._next_step = number + 1
            self._measure_update()
        clip = clip or self._clip
        turn = number if turn is None else turn
        due = record and turn % self._every_n_steps == 0
        sample = due and self._sample_is_due(turn)
        if self.closed or self._faults.exhausted(CAPTURE) or not (due or clip):
            return None
        given = (number, parameters, clip, scale, due, sample)
        measured = self._faults.run(CAPTURE, "this step is not recorded", self._capture, *given, otherwise=None)
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
        for undo in self._on_close:
            undo()
        self.flush()
        for sink in self._sinks:
            self._faults.run(f"sink {_name(sink)}", "what it had not written is lost", sink.close, otherwise=None)

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
        verdict, severity = judge(self.history, self.alerts, self._ongoing())
        alerts = [a for a in self.alerts if a.severity > Severity.INFO]
        diagnoses = self._diagnose(alerts)
        return Report(verdict, severity, tuple(self.alerts), diagnoses, self.history.latest, self._last_clip)

    def state_dict(self) -> dict[str, Any]:
        """The state in plain types and tensors, so that ``torch.load(..., weights_only=True)`` takes it."""
        self.flush()
        state = {
            "next_step": self._next_step,
            "sampled_period": self._sampled_period,
            "history": self.history.state_dict(),
            "alerts": [{**dataclasses.asdict(a), "severity": int(a.severity)} for a in self.alerts],
            "repeated": list(self._repeated),
            "rules": {name: part.state_dict() for name, part in _stateful(self._rules)},
            "clip": {name: part.state_dict() for name, part in _stateful([self._clip])},
        }
        plain: dict[str, Any] = _convert(state, np.ndarray, torch.from_numpy)
        return plain

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`: baselines, episodes and step numbers go on where they were."""
        state = _convert(state, Tensor, lambda tensor: tensor.cpu().numpy())
        self._next_step = int(state["next_step"])
        self._sampled_period = int(state["sampled_period"])
        self.history.load_state_dict(state["history"])
        self.alerts[:] = [Alert(**{**a, "severity": Severity(a["severity"])}) for a in state["alerts"]]
        self._repeated = {(rule, layer) for rule, layer in state["repeated"]}
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
        found = self._table.collect(parameters)
        measured = measure(found.values)
        factor = None if isinstance(scale, float) and scale == 1.0 else torch.as_tensor(scale)
        if factor is not None:
            measured = Measured(measured.norms / factor, measured.total_norm / factor)
        sampled = self._take_sample(found, factor) if sample else None
        record = None if clip is None else self._clip_gradients(clip, found.values, measured, factor)
        if due:
            copy, update, self._update_ratio = HostCopy(measured.norms), self._update_ratio, None
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
        stats = self._stats(arrived)
        self.history.append(stats)
        self._last_clip = arrived.clip and _as_floats(arrived.clip)
        new = self._check()
        self.alerts += new
        serious = [alert for alert in new if alert.severity > Severity.INFO]
        verdict, severity = judge(self.history, self.alerts, self._ongoing())
        report = Report(verdict, severity, tuple(new), self._diagnose(serious), stats, self._last_clip)
        for sink in list(self._sinks):
            result = self._faults.run(f"sink {_name(sink)}", DROPPED, sink.write, report, otherwise=FAILED)
            if result is FAILED:
                self._sinks.remove(sink)

    def _stats(self, arrived: _InFlight) -> StepStats:
        layers = len(arrived.layers)
        norm, has_grad = per_layer(arrived.copy.numpy(), arrived.rows, layers)
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(np.sqrt(np.sum(norm * norm)))
        update = arrived.update
        if update is not None and len(update) != layers:
            update = None
        sampled = {} if arrived.sampled is None else arrived.sampled._asdict()
        return StepStats(arrived.step, arrived.layers, norm, has_grad, total, update_ratio=update, **sampled)

    def _check(self) -> list[Alert]:
        """This step's alerts, but for those that a rule repeats from the step before: they are one episode."""
        found: list[Alert] = []
        for rule in list(self._rules):
            alerts = self._faults.run(f"rule {_name(rule)}", DROPPED, _checked, rule, self.history, otherwise=None)
            if alerts is None:
                self._rules.remove(rule)
            else:
                found += alerts
        before, self._repeated = (
            self._repeated,
            {(a.rule, a.layer) for a in found if a.severity > Severity.INFO},
        )
        return [a for a in found if a.severity is Severity.INFO or (a.rule, a.layer) not in before]

    def _ongoing(self) -> dict[str, tuple[str, ...]]:
        """The layers of each rule's open episodes."""
        ongoing: dict[str, tuple[str, ...]] = {
            rule: tuple(layer for r, layer in sorted(self._repeated, key=str) if r == rule and layer)
            for rule, _ in self._repeated
        }
        for rule in self._rules:
            if isinstance(rule, default_rules.LayerRule):
                ongoing.pop(rule.name, None)
                if rule.open_layers:
                    ongoing[rule.name] = rule.open_layers
        return ongoing

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


def _checked(rule: Rule, history: History) -> list[Alert]:
    """A rule may be a generator, which fails only when it is run through."""
    return list(rule.check(history))


def _as_floats(record: ClipRecord) -> ClipRecord:
    numbers = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "policy"}
    return ClipRecord(record.policy, **{name: float(value) for name, value in numbers.items()})


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


def _check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    mine = {id(p) for p in model.parameters()}
    if not any(id(p) in mine for p in parameters_of(optimizer)):
        raise ValueError(
            f"optimizer: {type(optimizer).__name__} shares no parameter with model {type(model).__name__}; "
            "was the optimizer made before the model was moved, wrapped or replaced?"
        )


def check_parts(argument: str, parts: Any, *methods: str) -> list[Any]:
    """``parts`` as a list; raises TypeError when one of them lacks one of ``methods``."""
    if not isinstance(parts, Iterable) or isinstance(parts, (str, Mapping)):
        raise TypeError(f"{argument} must be a list or tuple, got {parts!r}")
    for part in (found := list(parts)):
        for method in methods:
            if isinstance(part, type) or not callable(getattr(part, method, None)):
                raise TypeError(f"{argument}: {part!r} has no method {method}(); is it a class instead of an object?")
    return found
