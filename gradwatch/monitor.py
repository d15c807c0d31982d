"""Monitor: which step is measured, looked at, probed and clipped, and when."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch import amp, diagnosis
from gradwatch import clipping as clipping_policies
from gradwatch import rules as default_rules
from gradwatch import sinks as default_sinks
from gradwatch.arriving import Arriving
from gradwatch.capture import Capture
from gradwatch.clipping.check import check_model
from gradwatch.faults import Faults, warn
from gradwatch.history import History
from gradwatch.journal import FAILED, Journal, load_states, states
from gradwatch.layers import LayerTable
from gradwatch.optimizers import as_list, as_optimizers, maximizes, parameters_of
from gradwatch.patterns import check_whole_number
from gradwatch.probe_schedule import Probed, ProbeSchedule
from gradwatch.protocols import Cause, ClipPolicy, Rule, Sink
from gradwatch.records import BEFORE_CLIPPING, Alert, Layer, Report
from gradwatch.sharding import rank
from gradwatch.stats import Measured

CAPTURE = "the capture of gradients"
PROBE = "the probe", "no step is probed any more"

FIRST_STEPS = 16
"""Steps at the start of a run that are looked at as closely as sampled ones: what is set up wrongly shows there."""

OFTEN, AT_FIRST = 50, 300
"""Steps from one look to the next among the steps after those: most of what goes wrong does so early, and short runs
have few sampled steps."""


F = TypeVar("F", bound=Callable[..., Any])


def is_first_look(recorded: int) -> bool:
    """Whether the step that is recorded as this one is looked at closely since the run has only begun."""
    return recorded < FIRST_STEPS or (recorded < AT_FIRST and recorded % OFTEN == 0)


def untraced(function: F) -> F:
    """``function`` as it is also in a compiled training step: traced, it would break the graph wherever it looks."""
    left_alone: F = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return left_alone


STATE = {
    *("next_step", "sampled_period", "recorded", "clip"),
    *("history", "log", "rules", "clip_log", "explained", "unexplained"),
}
"""What a monitor's state has, and its journal's."""


def _alive(references: Iterable[weakref.ref[Any]]) -> list[Any]:
    return [thing for reference in references if (thing := reference()) is not None]


class Monitor:
    """Measures every layer's gradient norm at every optimizer step, raises alerts, clips on request, writes to sinks.

    Call :meth:`step` when the gradients of a step are complete: after accumulation and unscaling, before the
    optimizer's step and before any clipping of your own. Training is never changed (but by ``clip``), nor stopped: what
    fails in the monitor warns once, and is switched off when it does so again and again.

    Args:
        model: the module to watch.
        optimizer: look only at the parameters that it updates, as when two optimizers share a model; or several.
        rules: what to check, :func:`gradwatch.rules.default` by default; ``()`` for none.
        clip: a policy of :mod:`gradwatch.clipping`; none by default.
        scaler: the ``torch.amp.GradScaler`` in use, so that gradients which it has not unscaled yet are measured as
            they would be, and a step that it skips counts as skipped and not as a fault.
        sinks: where reports go, the Console by default; ``()`` for nowhere. Of several ranks only rank 0 writes.
        every_n_steps: record every n-th step. With ``clip`` every step is measured and clipped all the same.
        histogram_every_n_steps: take the dearer statistics (histograms, zeros, parameter norms, update ratios) at every
            n-th step, 0 for never.
        probe_every_n_steps: look into the backward pass of every n-th step, see :meth:`probe`; 0 for only when there is
            a reason to.
        granularity: "layer", a module's own parameters together, or "parameter".
        include: patterns of the layer names to watch, such as ``"encoder.*"``; all by default.
        exclude: patterns of the layer names to leave out.
        diagnose: look for causes when there are alerts; or the causes to look for,
            ``[*gradwatch.diagnosis.default(), MyCause()]``.
        strict: raise what fails in the monitor, for tests and continuous integration.

    Raises:
        TypeError: when an argument has the wrong type.
        ValueError: when an argument is out of range, a pattern matches no layer, the model has no parameters, the
            optimizer shares none with it, or ``clip`` cannot be right for it.

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
        optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None = None,
        rules: Iterable[Rule] | None = None,
        clip: ClipPolicy | None = None,
        scaler: Any = None,
        sinks: Iterable[Sink] | None = None,
        every_n_steps: int = 1,
        histogram_every_n_steps: int = 100,
        probe_every_n_steps: int = 0,
        granularity: str = "layer",
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        diagnose: bool | Iterable[Cause] = True,
        strict: bool = False,
    ) -> None:
        check_whole_number("every_n_steps", every_n_steps, at_least=1)
        check_whole_number("histogram_every_n_steps", histogram_every_n_steps, at_least=0)
        check_whole_number("probe_every_n_steps", probe_every_n_steps, at_least=0)
        self._table = LayerTable(model, granularity, include, exclude)
        given = as_list(optimizer)
        optimizers = as_optimizers(given)
        for one in optimizers:
            _check_optimizer(one, model, self._table)
        # A monitor that is kept for its history keeps no parameters alive.
        self._given_refs, self._optimizer_refs = [*map(weakref.ref, given)], [*map(weakref.ref, optimizers)]
        self._told_of_gone = False
        self._scaler = scaler
        if scaler is not None and not hasattr(scaler, "unscale_"):
            raise TypeError(f"scaler must be a torch.amp.GradScaler, got {_short(scaler)}")
        own_rules = default_rules.fresh(
            check_parts("rules", default_rules.default() if rules is None else rules, "check")
        )
        default_rules.check(own_rules, self._table.names)
        self._clip = clip if clip is None else check_parts("clip", [clip], "clip_")[0]
        if clip is not None:
            check_model(clip, model, self._table.named_parameters())
        own_sinks = check_parts("sinks", [default_sinks.Console()] if sinks is None else sinks, "write", "close")
        if isinstance(diagnose, bool):
            causes: Iterable[Cause] = diagnosis.default() if diagnose else ()
        else:
            causes = check_parts("diagnose", diagnose, "explain")
        self._every_n_steps = every_n_steps
        self._histogram_every_n_steps = histogram_every_n_steps
        self._faults = Faults(strict)
        self._on_close: list[Callable[[], None]] = []

        self.closed = False
        self.stepped = False
        """Set by :meth:`step`, for a hook that would measure the same step again; the hook clears it."""
        self.recording = True
        """Whether :meth:`step` records; a hook clears it while a closure is evaluated again."""
        self._next_step, self._stride = 0, 1
        self._unnoticed = amp.Unnoticed()
        self._turn: _Turn | None = None
        self._capture = Capture(self._table, self._faults)
        self._probes = ProbeSchedule(self._table, probe_every_n_steps)
        self._probed: Probed | None = None
        """What is in no report yet."""
        self._sampled_period = -1
        self._recorded = 0
        self._journal = Journal(own_rules, causes, own_sinks, self._probes, self._faults)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers watched, in the model's order."""
        return self._table.layers

    @property
    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return _alive(self._optimizer_refs)

    @property
    def history(self) -> History:
        """The last steps, of those whose measurement has arrived."""
        self._journal.catch_up()
        return self._journal.history

    @property
    def alerts(self) -> list[Alert]:
        """Every alert so far, oldest first."""
        self._journal.catch_up()
        return self._journal.log.alerts

    @untraced
    def step(self, step: int | None = None) -> None:
        """Measure, check, clip and record the gradients as they are now.

        It waits for no device but at sampled steps, and at the first 16 and every 50th of the first 300 of a run.

        Args:
            step: the number to record, one more than the last by default.

        Raises:
            TypeError: when ``step`` is no whole number.
        """
        self.stepped = True
        self._observe_all(step)

    def probe(self) -> None:
        """Look into the forward and backward pass of the coming step: how each operation passes the gradient on.

        The step's report has the profile, see :func:`gradwatch.probe`. A step is also probed after an alert, to say
        why, and early in a run. Of accumulated gradients the first backward pass is seen. A probed step waits for the
        device.
        """
        self._probes.ask()
        self._get_ready(self._next_step)

    @untraced
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Record the step, then clip: in a loop it takes the place of ``torch.nn.utils.clip_grad_norm_``.

        Args:
            max_norm: the largest total L2 norm allowed.

        Returns:
            The total norm before clipping, 0-dim, float32 or of float64 parameters float64.

        Raises:
            ValueError: when ``max_norm`` is not above 0.
            TypeError: when ``max_norm`` is not a number.
        """
        policy = clipping_policies.GlobalNorm(max_norm)
        self.stepped = True
        measured = self._observe_all(clip=policy)
        if measured is not None:
            return measured.total_norm.to(self._table.norm_dtype)
        if self._table.sharding is not None and not self.closed:  # the other ranks clip by NaN, that is not at all
            return torch.tensor(float("nan"))
        # The monitor is closed or has failed: the caller still relies on clipping.
        scaled = [found.factor for found in self._scalings() if found is not None and found.factor is not None]
        factor = scaled[0] if scaled else 1.0
        parameters = self._table.collect(self._looked_at(None), everything=True).parameters
        return nn.utils.clip_grad_norm_(parameters, float(max_norm * factor)) / factor

    @untraced
    def observe(
        self,
        step: int | None = None,
        *,
        parameters: Iterable[Tensor] | None = None,
        clip: ClipPolicy | None = None,
        record: bool = True,
        scaling: amp.Scaling | None = None,
        taking_turns: int = 1,
        captured: str = BEFORE_CLIPPING,
        last: bool = True,
    ) -> Measured | None:
        """What :meth:`step` does, for the integrations that drive a monitor.

        Args:
            step: the number to record, one more than the last by default.
            parameters: look only at these; the optimizer's by default.
            clip: a policy for this step instead of the monitor's own.
            record: False to clip only, as when a closure is evaluated again.
            scaling: what a gradient scaler does to this step.
            taking_turns: how many optimizers step one after the other. ``every_n_steps`` and
                ``histogram_every_n_steps`` count their rounds: every second step may always be the same one's.
            captured: BEFORE_CLIPPING or AFTER_CLIPPING of :mod:`gradwatch.records`.
            last: False while more gradients of the same step will come, as from another optimizer.
        """
        number, due, look, sample = self._turn = self._turn or self._begin(step, taking_turns, record)
        if last:
            self._turn = None
            if record and not self.closed:
                self._take_profile(number)
        clip = clip or self._clip
        # Of a sharded model every rank must go on, or the others would wait for it.
        spent = clip is None and self._table.sharding is None and self._faults.exhausted(CAPTURE)
        if self.closed or spent:
            return None
        if not (due or clip):
            if last:
                self._look_ahead(parameters, taking_turns)
            return None
        looked_at = self._looked_at(parameters)
        try:
            self._capture.add(looked_at, clip, look, sample, scaling)
            if not last:
                return None
            consequence = f"this step is not recorded{' nor clipped' if clip else ''}"
            given = (number, due, look, sample, clip, captured)
            result = self._faults.run(CAPTURE, consequence, self._capture.finish, *given, otherwise=None)
        except BaseException:  # Ctrl-C: what was measured so far is no part of the next step
            self._turn = None
            self._capture.forget()
            raise
        measured, arriving = result or (None, None)
        if arriving is not None:
            self._journal.send(self._without_moves(arriving), self._probed, writes=rank() == 0)
            self._probed = None
        self._journal.receive()
        self._look_ahead(looked_at, taking_turns)
        return measured

    def _observe_all(self, step: int | None = None, clip: ClipPolicy | None = None) -> Measured | None:
        """The gradients of all optimizers, also where the scaler has unscaled those of some and not of others."""
        scalings = self._scalings()
        if len({found and found.factor is None for found in scalings}) == 1:
            return self.observe(step, clip=clip, record=self.recording, scaling=scalings[0])
        measured = None
        for i, (optimizer, scaling) in enumerate(zip(self._optimizers, scalings), 1):
            measured = self.observe(
                step,
                parameters=parameters_of(optimizer),
                clip=clip,
                record=self.recording,
                scaling=scaling,
                last=i == len(scalings),
            )
        return measured

    def flush(self) -> None:
        """Take in every measurement that is still on its way from the device."""
        self._journal.flush()

    def close(self) -> None:
        """Flush, close the sinks and remove what drives this monitor. May be called more than once."""
        if self.closed:
            return
        with ExitStack() as stack:  # from the last to the first, whatever raises with strict=True
            stack.callback(self._let_go)
            stack.callback(self._journal.close)
            stack.callback(self.flush)
            while self._on_close:
                self._on_close.pop()()
            self.closed = True

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
        return self._journal.report()

    def state_dict(self) -> dict[str, Any]:
        """The state in plain types and tensors, so that ``torch.load(..., weights_only=True)`` takes it."""
        self.flush()
        state = {
            "next_step": self._next_step,
            "sampled_period": self._sampled_period,
            "recorded": self._recorded,
            "clip": states([self._clip]),
            **self._journal.state_dict(),
        }
        plain: dict[str, Any] = _convert(state, np.ndarray, torch.from_numpy)
        return plain

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`: baselines, episodes and step numbers go on where they were.

        Raises:
            ValueError: when ``state`` is not what :meth:`state_dict` returned.
        """
        if not isinstance(state, Mapping) or not set(state) >= STATE:
            raise ValueError(f"state must be what Monitor.state_dict() returned, got {_short(state)}")
        state = _convert(state, Tensor, lambda tensor: tensor.cpu().numpy())
        self._next_step = int(state["next_step"])
        self._sampled_period = int(state["sampled_period"])
        self._recorded = int(state["recorded"])
        self.flush()
        self._start_capture()  # how far the weights are from those before is no step
        self._journal.load_state_dict(state)
        load_states([self._clip], state["clip"])

    def _let_go(self) -> None:
        """Keep nothing of the user's that is large, and no hook on the model."""
        self._probes.switch_off()
        self._start_capture()

    def _start_capture(self) -> None:
        """Forget what is measured, or about to be."""
        self._capture.looks.close()
        self._capture = Capture(self._table, self._faults)
        self._turn = None

    def _scalings(self) -> list[amp.Scaling | None]:
        """What the scaler does to the gradients of each optimizer; one entry where none is known."""
        if self._scaler is None and self._unnoticed.is_at_work():
            warn(
                "a GradScaler is at work and has not unscaled the gradients when monitor.step() is called: norms are "
                "too large by its scale; give it to the monitor (scaler=), or call its unscale_() before"
            )
        if self._scaler is None:
            return [None]
        optimizers, given = self._optimizers, _alive(self._given_refs)
        if len(optimizers) != len(given):
            return [amp.scaling(self._scaler, *optimizers, *given)]
        return [amp.scaling(self._scaler, *both) for both in zip(optimizers, given)] or [amp.scaling(self._scaler)]

    def _without_moves(self, arriving: Arriving) -> Arriving:
        """A step of LBFGS is many in one, and how far they moved says nothing of any of them."""
        many = arriving.moved is not None and any(isinstance(o, torch.optim.LBFGS) for o in self._optimizers)
        return arriving._replace(moved=None) if many else arriving

    def _begin(self, step: int | None, taking_turns: int, record: bool) -> _Turn:
        number = self._next_step if step is None else _whole("step", step)
        turn = number // taking_turns
        due = record and self._is_due(turn)
        sample = due and self._samples(turn)
        look = sample or (due and is_first_look(self._recorded))
        if record:
            self._stride = max(1, number + 1 - self._next_step) if self._recorded else 1
            self._next_step = number + 1
            self._capture.begin(look)
        if due and self._histogram_every_n_steps:
            self._sampled_period = turn // self._histogram_every_n_steps
        self._recorded += due
        return _Turn(number, due, look, sample)

    def _is_due(self, turn: int) -> bool:
        return turn % self._every_n_steps == 0

    def _samples(self, turn: int) -> bool:
        """At each multiple of ``histogram_every_n_steps``, or at the first step recorded after it."""
        if not self._histogram_every_n_steps:
            return False
        period, rest = divmod(turn, self._histogram_every_n_steps)
        return rest == 0 or period > self._sampled_period

    def _looked_at(self, parameters: Iterable[Tensor] | None) -> list[Tensor] | None:
        """``parameters``, or the optimizers'; None for all."""
        if parameters is not None:
            return list(parameters)
        if not self._optimizer_refs:
            return None
        optimizers = self._optimizers
        if len(optimizers) < len(self._optimizer_refs) and not self._told_of_gone:
            self._told_of_gone = True
            warn(
                "an optimizer that the monitor was given is gone, and its parameters are not looked at any more; make "
                "a monitor for the new one"
            )
        return parameters_of(*optimizers)

    def _look_ahead(self, parameters: Iterable[Tensor] | None, taking_turns: int) -> None:
        """Get ready for the coming step, where it will be looked at closely.

        Not for the first: a model that is compiled with hooks in place is compiled once more when they are gone.
        """
        turn = (self._next_step - 1 + self._stride) // taking_turns  # the user's own numbers may come in strides
        if self._is_due(turn) and (is_first_look(self._recorded) or self._samples(turn)):
            self._capture.looks.expect(self._looked_at(parameters), maximizes(self._optimizers))
        self._get_ready(turn)

    def _get_ready(self, turn: int) -> None:
        """Arm the probe before the forward pass of ``turn``, where it is due."""
        if self._faults.run(*PROBE, self._probes.get_ready, turn, self._recorded, otherwise=FAILED) is FAILED:
            self._probes.switch_off()

    def _take_profile(self, step: int) -> None:
        found = self._faults.run(*PROBE, self._probes.take, step, otherwise=FAILED)
        self._capture.looks.strangers = self._probes.strangers
        if isinstance(found, Probed):
            self._probed = found
        elif found is FAILED:
            self._probes.switch_off()


class _Turn(NamedTuple):
    """One step: its number, whether it is recorded, whether it is looked at closely, and whether it is sampled."""

    number: int
    due: bool
    look: bool
    sample: bool


def _whole(argument: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{argument} must be a whole number, got {value!r}") from None


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
    "diagnose": "gradwatch.diagnosis.Saturation()",
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
