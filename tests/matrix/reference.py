"""What the matrix is measured against: the same step, computed by one process in float64."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

import gradwatch as gw
from tests.models import as_float64

Loss = Callable[[nn.Module], Tensor]


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Three layers, the same at every call."""
    torch.manual_seed(0)
    layers = {"fc1": nn.Linear(8, 16), "tanh1": nn.Tanh(), "fc2": nn.Linear(16, 16), "tanh2": nn.Tanh()}
    return nn.Sequential(OrderedDict(**layers, fc3=nn.Linear(16, 1))).to(dtype)


def losses(count: int) -> list[Loss]:
    """One loss per batch for :func:`network`, each with a gradient of its own.

    The batches are exact in every precision, and the loss is taken in float64: what differs from the twin is the
    network's own arithmetic.
    """
    generator = torch.Generator().manual_seed(1)

    def loss_on(x: Tensor) -> Loss:
        def loss(model: nn.Module) -> Tensor:
            out = model(x.to(next(model.parameters()).dtype))
            return (out.double() - x.double().sum(dim=1, keepdim=True)).square().mean()

        return loss

    return [loss_on(torch.randn(16, 8, generator=generator).bfloat16()) for _ in range(count)]


def norms_of(gradients: Mapping[str, Tensor | None]) -> dict[str, float]:
    """The L2 norm of each layer from the gradients of its parameters, by NumPy in float64."""
    squares: dict[str, float] = {}
    for name, gradient in gradients.items():
        if gradient is not None:
            layer = name.rpartition(".")[0]
            squares[layer] = squares.get(layer, 0.0) + float(np.square(np.abs(as_float64(gradient))).sum())
    return {layer: float(np.sqrt(square)) for layer, square in squares.items()}


def norms_now(model: nn.Module) -> dict[str, float]:
    """The L2 norm of each layer's gradient as it is now."""
    return norms_of({name: p.grad for name, p in model.named_parameters()})


def twin_norms(model: nn.Module, losses: Iterable[Loss]) -> dict[str, float]:
    """The norms of the gradients that ``losses``, added up, have on a float64 copy of ``model``."""
    twin = copy.deepcopy(model).double()
    twin.zero_grad()
    for loss in losses:
        loss(twin).backward()
    return norms_now(twin)


def total_of(norms: Mapping[str, float]) -> float:
    """The L2 norm of all layers together."""
    return float(np.linalg.norm(list(norms.values())))


def latest_norms(monitor: gw.Monitor) -> dict[str, float]:
    """What the monitor measured last, the layers with a gradient."""
    stats = monitor.history.latest
    assert stats is not None
    return {name: float(n) for name, n, has in zip(stats.layers, stats.grad_norm, stats.has_grad) if has}


def assert_norms(monitor: gw.Monitor, expected: Mapping[str, float], within: float = 1e-6) -> None:
    """The latest step has just the layers of ``expected``, each with its norm, and their total."""
    found = latest_norms(monitor)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=within)
    stats = monitor.history.latest
    assert stats is not None
    np.testing.assert_allclose(stats.total_norm, total_of(expected), rtol=within)
