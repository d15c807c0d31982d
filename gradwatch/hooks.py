"""watch(): a Monitor that an optimizer drives, with hooks that are gone when the monitor is closed."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.amp import Scaling, fused_scaling, scaling
from gradwatch.faults import warn
from gradwatch.monitor import Monitor, untraced
from gradwatch.optimizers import as_list, as_optimizers, parameters_of, unwrap
from gradwatch.protocols import Cause, ClipPolicy, Rule, Sink
from gradwatch.records import AFTER_CLIPPING


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer],
    *,
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
) -> Monitor:
    """Watch ``model`` at every step of ``optimizer``, without a change to the training loop.

    The gradients are taken as the optimizer is about to use them: accumulated, reduced, unscaled, and after any
    clipping of your own. To see them before that, call ``monitor.step()`` or ``monitor.clip_grad_norm_()`` in the loop;
    the optimizer's hook then leaves that step alone. With a closure they are taken when it has been evaluated first.

    Of several ranks every one must watch, and close at the same step: those of a sharded model add up their norms and
    would wait for one that does not.

    Args:
        model: the module to watch.
        optimizer: the optimizer that updates it, or a wrapper around one. Or several that share the model, whose steps
            make one record together: each for its own kind of parameters, or one for each parameter, stepping while
            the backward pass runs. Of optimizers that take turns with losses of their own watch each by itself.
        rules: see :class:`Monitor`, as the rest.
        scaler: the ``torch.amp.GradScaler`` in use. A step that it skips never comes to the optimizer, so without it
            such a step is not seen, unless you call ``monitor.step()``.

    Returns:
        The monitor; ``monitor.close()`` or leaving its ``with`` block removes the hooks.

    Raises:
        TypeError: when an argument has the wrong type.
        ValueError: when an argument is out of range, an optimizer shares no parameter with the model, or there is a
            ``clip`` with several optimizers: when the first one steps, the gradients of the others may not be there.

    Example:
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with watch(model, optimizer, sinks=()) as monitor:
        ...     for _ in range(3):
        ...         model(torch.ones(2, 4)).square().mean().backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> len(monitor.history)
        3
    """
    given = as_list(optimizer)
    optimizers = as_optimizers(given)
    if not optimizers:
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, or several, got {optimizer!r}")
    if clip is not None and len(optimizers) > 1:
        raise ValueError(
            f"clip={clip!r}: with {len(optimizers)} optimizers not all gradients are there when the first one steps; "
            "call monitor.clip_grad_norm_() in the loop instead"
        )
    monitor = Monitor(
        model,
        optimizer=given,
        rules=rules,
        clip=clip,
        scaler=scaler,
        sinks=sinks,
        every_n_steps=every_n_steps,
        histogram_every_n_steps=histogram_every_n_steps,
        probe_every_n_steps=probe_every_n_steps,
        granularity=granularity,
        include=include,
        exclude=exclude,
        diagnose=diagnose,
        strict=strict,
    )
    driver = _Driver(monitor, optimizers)
    if scaler is not None:
        monitor.on_close(_ScalerStep(scaler, driver).put_in_place())
    return monitor


class _Driver:
    """The hooks of the optimizers of one monitor. Each of them stepping once makes a round, which is one record."""

    def __init__(self, monitor: Monitor, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._monitor = monitor
        self.ids = {id(optimizer) for optimizer in optimizers}
        self.waiting = False
        """Whether a scaler has shown this step already."""
        self._stepped: set[int] = set()
        self._taken = False
        """Whether this round was captured before its optimizers step, by the user's own call."""
        self._depth = 0
        self._told = False
        """Whether it was said that a closure computes no gradients."""
        for optimizer in optimizers:
            monitor.on_close(optimizer.register_step_pre_hook(untraced(self.before_step)).remove)
            monitor.on_close(optimizer.register_step_post_hook(untraced(self.after_step)).remove)
        monitor.on_close(self._end_round)

    def before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._depth = self._depth % _levels(type(optimizer)) + 1  # back to 1 also after a step that raised
        if self._depth > 1 or self.waiting:
            return None
        # torch passes the optimizer itself as the first of args, so the closure is the second.
        if len(args) > 1 and _is_closure(args[1]):
            return (args[0], self._watched(args[1], optimizer), *args[2:]), kwargs
        if _is_closure(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._watched(kwargs["closure"], optimizer)}
        self.observe(optimizer, fused_scaling(optimizer))
        return None

    def after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth = 0

    def observe(self, optimizer: torch.optim.Optimizer, scaling: Scaling | None) -> None:
        """``optimizer`` is about to step; the last one of a round ends it."""
        if len(self.ids) > 1 and not self._monitor.recording:  # a closure that is evaluated again
            return
        if id(optimizer) in self._stepped:
            self._end_round()
        stepped, taken = self._stepped | {id(optimizer)}, self._taken or self._monitor.stepped
        last = stepped == self.ids
        self._monitor.stepped = False
        self._stepped, self._taken = (set(), False) if last else (stepped, taken)
        if taken:
            return
        try:
            self._monitor.observe(
                parameters=parameters_of(optimizer),
                record=self._monitor.recording,
                scaling=scaling,
                captured=AFTER_CLIPPING,
                last=last,
            )
        except BaseException:  # Ctrl-C: the next step begins a round of its own
            self._stepped = set()
            raise

    def _end_round(self) -> None:
        """End a round in which not every optimizer stepped."""
        if self._stepped and not self._taken:
            self._monitor.observe(parameters=(), captured=AFTER_CLIPPING)
        self._taken = False
        self._stepped.clear()

    def _watched(self, closure: Callable[..., Any], optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
        """``closure``, after whose first evaluation the gradients are captured: before it they are the last step's."""
        evaluations = 0

        def watched(*args: Any, **kwargs: Any) -> Any:
            nonlocal evaluations
            self._monitor.recording = evaluations == 0
            evaluations += 1
            before = [(weakref.ref(p.grad), p.grad._version) for p in parameters_of(optimizer) if p.grad is not None]
            try:
                result = closure(*args, **kwargs)
                if not _untouched(parameters_of(optimizer), before):
                    self.observe(optimizer, fused_scaling(optimizer))
                elif not self._told:
                    self._told = True
                    warn(
                        f"the closure of {type(optimizer).__name__} leaves all gradients as they are, so the optimizer "
                        "computes them by itself: they are not recorded"
                    )
            finally:
                self._monitor.recording = True
            return result

        return watched if inspect.isroutine(closure) else _Proxy(closure, watched)


def _is_closure(argument: Any) -> bool:
    return callable(argument) and not isinstance(argument, nn.Module)


def _untouched(parameters: Iterable[Tensor], before: Sequence[tuple[weakref.ref[Tensor], int]]) -> bool:
    """Whether all gradients are the same tensors as ``before``, and nothing was written to them."""
    now = [p.grad for p in parameters if p.grad is not None]
    if len(now) != len(before):
        return False
    return all(ref() is gradient and gradient._version == version for gradient, (ref, version) in zip(now, before))


class _Proxy:
    """A user's object in the place of a closure, with all that it has, called by way of ``call``."""

    def __init__(self, closure: Callable[..., Any], call: Callable[..., Any]) -> None:
        self._closure, self._call = closure, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._closure, name)


class _ScalerStep:
    """Takes the place of ``scaler.step``: a step that is skipped never comes to the optimizer's hooks."""

    def __init__(self, scaler: Any, driver: _Driver) -> None:
        self._scaler, self._driver = scaler, driver
        self._step = scaler.step
        self._before = vars(scaler).get("step")
        """What is in its place already, as another monitor's or the user's own; None for the scaler's method."""
        self._done = False

    def put_in_place(self) -> Callable[[], None]:
        """Returns what takes it away again."""
        self._scaler.step = self
        return self._take_away

    def __call__(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)  # the optimizer's hooks see each of its steps
        found, inner = scaling(self._scaler, optimizer), unwrap(optimizer)
        if self._done or fused or found is None or inner is None or id(inner) not in self._driver.ids:
            return self._step(optimizer, *args, **kwargs)
        if found.factor is not None:
            self._scaler.unscale_(optimizer)  # as step() would
        self._driver.observe(inner, Scaling(None))
        self._driver.waiting = True
        try:
            return self._step(optimizer, *args, **kwargs)
        finally:
            self._driver.waiting = False

    def __reduce__(self) -> tuple[Any, ...]:
        """In a copy of the scaler its own step() is in place again."""
        return getattr, (self._scaler, "step")

    def _take_away(self) -> None:
        self._done = True  # another may have taken the place since, and go on to call this one
        if vars(self._scaler).get("step") is self:
            del self._scaler.step
            before = self._before
            while isinstance(before, _ScalerStep) and before._done:
                before = before._before
            if before is not None:
                self._scaler.step = before


def _levels(kind: type) -> int:
    """How often one step fires the hooks: once for each class whose step() torch hooked, by way of super().step()."""
    return sum(getattr(vars(c).get("step"), "hooked", False) for c in kind.__mro__) or 1
