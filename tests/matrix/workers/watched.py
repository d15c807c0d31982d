"""One watched training run on one rank, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

import gradwatch as gw
from gradwatch.records import to_plain
from tests.matrix.reference import norms_of
from tests.matrix.workers.training import TRAININGS

Gather = Callable[[nn.Module], Mapping[str, tuple[Tensor, "Tensor | None"]]]
"""The whole parameters of a model and their gradients, by the names that the unwrapped model gives them."""

NAMESPACES = ("c10d", "_c10d_functional", "_dtensor")


class Counted(TorchDispatchMode):
    """Notes the collectives that are called inside, each with its number of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:
            return NotImplemented  # first the DTensor, then what it calls
        if func.namespace in NAMESPACES and not func.__name__.startswith(("wait", "_wrap")):
            tensors = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
            self.calls.append((func._schema.name, sum(t.numel() for t in tensors if isinstance(t, Tensor))))
        return func(*args, **(kwargs or {}))


def whole(tensor: Tensor | None) -> Tensor | None:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(model: nn.Module) -> dict[str, tuple[Tensor, Tensor | None]]:
    """See :data:`Gather`, for DTensors and plain parameters."""
    names = [(name.removeprefix("module."), p) for name, p in model.named_parameters()]
    return {name: (whole(p.detach()), whole(p.grad)) for name, p in names}


def train(
    name: str,
    model: nn.Module,
    *,
    part: int | None = None,
    parts: int | None = None,
    hooked: bool = False,
    gather: Gather = gathered,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    accumulate: Callable[[nn.Module, bool], Any] = lambda model, last: nullcontext(),
    after_backward: Callable[[nn.Module], None] = lambda model: None,
    keep: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train ``model`` as the training of that name says, watched and clipped, and say what the monitor saw.

    Args:
        name: of the training.
        model: its model, wrapped as the case wants it.
        part, parts: which rows this rank takes; by default each rank others.
        hooked: whether the optimizer drives the monitor.
        gather: gives whole parameters and gradients.
        optimizer: made of the model, the training's own by default.
        accumulate: what each backward runs in, told whether it is the last before the step.
        after_backward: what to do with the gradients before they are measured.
        keep: whether to return also every step's gradients, parameters and sampled statistics.
        settings: of the monitor, which clips by default.
    """
    training = TRAININGS[name]
    part = dist.get_rank() if part is None else part
    parts = dist.get_world_size() if parts is None else parts
    made = (optimizer or training.optimizer)(model)
    settings = {"clip": gw.clipping.GlobalNorm(training.max_norm), "sinks": (), "strict": True, **settings}
    monitor = gw.watch(model, made, **settings) if hooked else gw.Monitor(model, **settings)
    own, clips, collectives, kept = [], [], [], []
    for step in range(training.steps):
        made.zero_grad()
        losses = training.losses(step, part, parts)
        for i, loss in enumerate(losses):
            with accumulate(model, i == len(losses) - 1):
                loss(model).backward()
        after_backward(model)
        now = gather(model)
        own.append(norms_of({name: gradient for name, (_, gradient) in now.items()}))
        before = {name: listed(*pair) for name, pair in now.items()}  # clipping changes what is not gathered
        with Counted() as counted:
            (made if hooked else monitor).step()
        if not hooked:
            made.step()
        collectives.append(counted.calls)
        clips.append(to_plain(monitor.report().clip))
        if keep:
            kept.append({"now": before, "stats": sampled(monitor)})
    result = seen(monitor) | {
        "own": own,
        "clips": clips,
        "collectives": collectives,
        "kept": kept,
        "parameters": {name: listed(p)[0] for name, (p, _) in gather(model).items()},
    }
    monitor.close()
    return result


def listed(*tensors: Tensor | None) -> list[list[float] | None]:
    """The elements of each."""
    return [None if tensor is None else tensor.double().flatten().tolist() for tensor in tensors]


def sampled(monitor: gw.Monitor) -> dict[str, Any]:
    """The latest step's sampled statistics."""
    names = ("max_abs", "zero_fraction", "nonfinite", "param_norm", "update_ratio", "histogram")
    plain: dict[str, Any] = to_plain({name: getattr(monitor.history.latest, name) for name in names})
    return plain


def seen(monitor: gw.Monitor) -> dict[str, Any]:
    """What a monitor knows, in plain numbers that are equal only when they are equal bit for bit."""
    monitor.flush()
    history = monitor.history
    return {
        "steps": history.steps.tolist(),
        "layers": list(history.layers),
        "norms": history.grad_norm.tolist(),
        "has_grad": history.has_grad.tolist(),
        "totals": history.total_norm.tolist(),
        "alerts": [to_plain(alert) for alert in monitor.alerts],
    }
