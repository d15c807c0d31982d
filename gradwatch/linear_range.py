"""Between which outputs an activation is not saturated."""

from __future__ import annotations

from torch import nn

FLAT = 0.05
"""Of its largest, the derivative below which an activation counts as saturated."""

SIGMOID = (1 - (1 - FLAT) ** 0.5) / 2, (1 + (1 - FLAT) ** 0.5) / 2
"""Of a sigmoid p, whose derivative is p (1 - p)."""


def linear_range(activation: nn.Module) -> tuple[float, float] | None:
    """The outputs between which the derivative is at least FLAT of its largest; None of what is not bounded.

    ReLU6 is none: that half of its outputs are 0 is as it should be.

    >>> linear_range(nn.Hardtanh(-2, 2))
    (-2.0, 2.0)
    >>> low, high = linear_range(nn.Sigmoid())
    >>> round(low * (1 - low) / 0.25, 6), round(high * (1 - high) / 0.25, 6)
    (0.05, 0.05)
    """
    kind, edge, tail = type(activation), (1 - FLAT) ** 0.5, FLAT**0.5
    if kind is nn.Sigmoid:
        return SIGMOID
    if kind is nn.Tanh:
        return -edge, edge
    if kind is nn.Softsign:
        return tail - 1, 1 - tail
    if kind is nn.Hardsigmoid:
        return 0.0, 1.0
    if type(activation) is nn.Hardtanh:
        return float(activation.min_val), float(activation.max_val)
    return None
