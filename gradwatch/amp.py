"""Gradient scalers: what gradients are multiplied by, and which steps are skipped."""

from __future__ import annotations

import gc
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Scaling(NamedTuple):
    """What a gradient scaler that is at work does to one step: it is skipped when a gradient is not finite."""

    factor: Tensor | None
    """0-dim, what the gradients are multiplied by; None where that is divided out already."""


def scaling(scaler: Any, *optimizers: torch.optim.Optimizer) -> Scaling | None:
    """What ``scaler`` does to the gradients as they are now; None when it is off.

    Args:
        scaler: a ``torch.amp.GradScaler`` or None.
        optimizers: whose gradients are meant; where they are not known, those of any.

    Example:
        >>> scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        >>> loss = scaler.scale(torch.tensor(1.0))
        >>> scaling(scaler)
        Scaling(factor=tensor(8.))
    """
    if scaler is None or not scaler.is_enabled():
        return None
    # Whether unscale_() has been called the scaler has no public way to say; get_scale() would wait for the device.
    stages = {key: state["stage"].name for key, state in scaler._per_optimizer_states.items()}
    if optimizers:
        unscaled = any(stages.get(id(optimizer), "READY") != "READY" for optimizer in optimizers)
    else:  # one that has stepped already is another's, as the discriminator's before the generator steps
        unscaled = "UNSCALED" in stages.values()
    return Scaling(None if unscaled else scaler._get_scale_async())


class Unnoticed:
    """Finds the scaler that nobody gave to the monitor, as nothing else tells that gradients were scaled.

    It looks for scalers at the first step, which takes some 30 ms, and at the second one for what became of them.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._seen: list[tuple[weakref.ref[Any], object]] = []

    def is_at_work(self) -> bool:
        """True at the second step where a scaler was updated since the first, and had unscaled nothing at either."""
        self._steps += 1
        if self._steps == 1:
            kinds = _with_subclasses(torch.amp.GradScaler)
            scalers = [found for found in gc.get_referrers(*kinds) if type(found) in kinds]
            self._seen = [(weakref.ref(s), s._per_optimizer_states) for s in scalers if _has_scaled(s)]
        elif self._seen:
            seen, self._seen = self._seen, []
            now = [(scaler, states) for ref, states in seen if (scaler := ref()) is not None]
            # update() begins a new dict of states.
            return any(_has_scaled(scaler) and scaler._per_optimizer_states is not states for scaler, states in now)
        return False


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))


def _has_scaled(scaler: Any) -> bool:
    found = scaling(scaler)
    return found is not None and found.factor is not None


def fused_scaling(optimizer: torch.optim.Optimizer) -> Scaling | None:
    """The same inside the step of a fused optimizer, which divides and skips by itself; None where no scaler steps it.

    >>> fused_scaling(torch.optim.SGD([torch.zeros(1)]))
    """
    if not hasattr(optimizer, "found_inf"):
        return None
    return Scaling(getattr(optimizer, "grad_scale", None))
