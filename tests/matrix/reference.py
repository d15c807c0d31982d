"""What the matrix is measured against: the same step, computed by one process in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from torch import Tensor, nn

import gradwatch as gw
from tests.models import as_float64


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


def twin_norms(model: nn.Module, losses: Iterable[Callable[[nn.Module], Tensor]]) -> dict[str, float]:
    """The norms of the gradients that ``losses``, added up, have on a float64 copy of ``model``."""
    twin = copy.deepcopy(model).double()
    twin.zero_grad()
    for loss in losses:
        loss(twin).backward()
    return norms_now(twin)


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
    np.testing.assert_allclose(stats.total_norm, np.linalg.norm(list(expected.values())), rtol=within)
