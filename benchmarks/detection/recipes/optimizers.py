"""Optimizers by name: PyTorch's own, and two short ones that PyTorch lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _Plain(Optimizer):
    """What the optimizers below share: a loop over the parameters that have a gradient."""

    def __init__(self, params: Any, lr: float, **defaults: Any) -> None:
        super().__init__(params, {"lr": lr, **defaults})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(self.update(p, p.grad, self.state[p], group), alpha=group["lr"])

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        raise NotImplementedError


class Lion(_Plain):
    """The sign of an interpolated momentum (Chen et al., 2023)."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, lr, betas=betas)

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        momentum = state.setdefault("momentum", torch.zeros_like(p))
        first, second = group["betas"]
        direction = momentum.lerp(grad, 1 - first).sign()
        momentum.lerp_(grad, 1 - second)
        return direction


class Lars(_Plain):
    """A step as large as the layer's weights are, whatever the gradient's size (You et al., 2017)."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, trust: float = 0.02) -> None:
        super().__init__(params, lr, momentum=momentum, trust=trust)

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        momentum = state.setdefault("momentum", torch.zeros_like(p))
        size, slope = p.norm(), grad.norm()
        trust = group["trust"] * size / slope if p.ndim > 1 and size > 0 and slope > 0 else 1.0
        return momentum.mul_(group["momentum"]).add_(grad * trust)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adafactor": torch.optim.Adafactor,
    "sparse_adam": torch.optim.SparseAdam,
    "lbfgs": torch.optim.LBFGS,
    "lion": Lion,
    "lars": Lars,
}
