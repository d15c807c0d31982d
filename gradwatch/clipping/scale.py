"""Multiplying gradients in place, for the policies that clip by a factor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def scale_(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply each of ``gradients`` in place by ``factor`` (0-dim), by device and dtype as torch does."""
    groups: dict[tuple[torch.device, torch.dtype, bool], list[Tensor]] = {}
    for g in gradients:
        groups.setdefault((g.device, g.dtype, g.layout is torch.strided), []).append(g)
    for (device, dtype, dense), group in groups.items():
        here = factor.to(device)
        if dense and dtype.itemsize > 1:
            torch._foreach_mul_(group, here)
        else:
            scale_each_(group, [here] * len(group))


def scale_each_(gradients: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each of ``gradients`` in place by its own factor: 0-dim, or of a dense one of a shape to broadcast.

    On the CPU what would be multiplied by 1 is not touched.
    """
    for g, factor in zip(gradients, factors):
        if factor.device.type == "cpu" and torch.all(factor == 1):
            continue
        here = factor.to(g.device)
        if g.dtype.itemsize == 1:  # float8 has no arithmetic of its own
            g.copy_(g.float() * here)
        else:
            g.mul_(here)
