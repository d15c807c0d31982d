"""watch(): a Monitor that an optimizer drives, with hooks that are gone when the monitor is closed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from gradwatch.monitor import Monitor
from gradwatch.protocols import ClipPolicy, Rule, Sink

_WRAPPED = ("optimizer", "base_optimizer", "optim")


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
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
) -> Monitor:
    """Watch ``model`` at every step of ``optimizer``, without a change to the training loop.

    The gradients are taken as the optimizer is about to use them: accumulated, reduced, unscaled, and after any
    clipping of your own. To see them before that, call ``monitor.step()`` or ``monitor.clip_grad_norm_()`` in the loop;
    the optimizer's hook then leaves that step alone. With a closure they are taken when it has been evaluated first.

    Args:
        model: the module to watch.
        optimizer: the optimizer that updates it, or a wrapper around one.
        rules: see :class:`Monitor`, as the rest.

    Returns:
        The monitor; ``monitor.close()`` or leaving its ``with`` block removes the hooks.

    Raises:
        TypeError: when an argument has the wrong type.
        ValueError: when an argument is out of range, or the optimizer shares no parameter with the model.

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
    raw = unwrap(optimizer)
    monitor = Monitor(
        model,
        optimizer=raw,
        rules=rules,
        clip=clip,
        sinks=sinks,
        every_n_steps=every_n_steps,
        histogram_every_n_steps=histogram_every_n_steps,
        granularity=granularity,
        include=include,
        exclude=exclude,
        diagnose=diagnose,
        strict=strict,
    )
    driver = _Driver(monitor)
    # Disabled for the compiler: reading numbers in a traced step would break its graph.
    monitor.on_close(raw.register_step_pre_hook(torch.compiler.disable(driver.before_step)).remove)  # type: ignore[no-untyped-call]
    monitor.on_close(raw.register_step_post_hook(torch.compiler.disable(driver.after_step)).remove)  # type: ignore[no-untyped-call]
    return monitor


def unwrap(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside ``optimizer``: wrappers such as Accelerate's or Lookahead do not take hooks.

    Raises:
        TypeError: when there is none.
    """
    found = optimizer
    for _ in range(8):
        if isinstance(found, torch.optim.Optimizer) and hasattr(found, "_optimizer_step_pre_hooks"):
            return found
        inner = [getattr(found, name) for name in _WRAPPED if hasattr(found, name)]
        if not inner:
            break
        found = inner[0]
    raise TypeError(f"optimizer must be a torch.optim.Optimizer or wrap one, got {type(optimizer).__name__}")


class _Driver:
    """The two hooks of one optimizer."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._depth = 0

    def before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._depth = self._depth % _levels(type(optimizer)) + 1  # back to 1 also after a step that raised
        if self._depth > 1:
            return None
        # torch passes the optimizer itself as the first of args, so the closure is the second.
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._watched(args[1], optimizer), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._watched(kwargs["closure"], optimizer)}
        self._observe(optimizer)
        return None

    def after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth = 0

    def _watched(self, closure: Callable[[], Any], optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        """``closure``, after whose first evaluation the gradients are captured: before it they are the last step's."""
        evaluations = 0

        @functools.wraps(closure)
        def watched() -> Any:
            nonlocal evaluations
            self._monitor.recording = evaluations == 0
            evaluations += 1
            try:
                result = closure()
                self._observe(optimizer)
            finally:
                self._monitor.recording = True
            return result

        return watched

    def _observe(self, optimizer: torch.optim.Optimizer) -> None:
        if self._monitor.stepped:
            self._monitor.stepped = False
        else:
            scale = getattr(optimizer, "grad_scale", None)  # set while a GradScaler steps a fused optimizer
            self._monitor.observe(record=self._monitor.recording, scale=1.0 if scale is None else scale)


def _levels(kind: type) -> int:
    """How often one step fires the hooks: once for each class whose step() torch hooked, by way of super().step()."""
    return sum(getattr(vars(c).get("step"), "hooked", False) for c in kind.__mro__) or 1
