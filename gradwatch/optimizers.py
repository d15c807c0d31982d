"""Optimizers as users have them: wrapped, several at once, and with groups that may grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_WRAPPED = ("optimizer", "base_optimizer", "_base_optimizer", "optim")


def unwrap(optimizer: Any) -> torch.optim.Optimizer | None:
    """The torch optimizer whose ``step()`` updates the parameters; None where there is none in ``optimizer``.

    Wrappers such as Accelerate's or Lookahead take no hooks. One that does, as Fabric's or SAM, may still never be
    stepped itself, so the one inside is what counts; but not where it has only some of the parameters, as in
    ZeroRedundancyOptimizer.

    >>> optimizer = torch.optim.SGD([torch.zeros(1)])
    >>> unwrap(optimizer) is optimizer, unwrap("adam") is None
    (True, True)
    """
    found, hooked = optimizer, None
    for _ in range(8):
        if isinstance(found, torch.optim.Optimizer) and hasattr(found, "_optimizer_step_pre_hooks"):
            if hooked is not None and _ids(hooked) != _ids(found):
                break
            hooked = found
        inner = [getattr(found, name) for name in _WRAPPED if hasattr(found, name)]
        if not inner or inner[0] is found:
            break
        found = inner[0]
    return hooked


def as_optimizers(optimizer: Any) -> list[torch.optim.Optimizer]:
    """The torch optimizers of one or several, or of wrappers around them, with those that they step for themselves.

    Raises:
        TypeError: when there is none in one of them.
    """
    found = []
    for given in as_list(optimizer):
        inner = unwrap(given)
        if inner is None:
            raise TypeError(f"optimizer must be a torch.optim.Optimizer or wrap one, got {type(given).__name__}")
        found.append(inner)
        # One for some parameters may step another for the rest, as Muon steps AdamW for vectors.
        beside = [part for name in _WRAPPED if (part := unwrap(getattr(inner, name, None))) is not None]
        found += [part for part in beside if not _ids(part) <= _ids(inner)]
    return list({id(one): one for one in found}.values())


def as_list(optimizer: Any) -> list[Any]:
    """One or several, as a list."""
    return [] if optimizer is None else list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]


def parameters_of(*optimizers: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters that ``optimizers`` update now: groups may be added while training runs."""
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


def maximizes(optimizers: Iterable[torch.optim.Optimizer]) -> bool:
    """Whether they make the loss larger.

    >>> maximizes([torch.optim.SGD([torch.zeros(1)], maximize=True)])
    True
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return bool(groups) and all(group.get("maximize", False) for group in groups)


def _ids(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for p in parameters_of(optimizer)}
