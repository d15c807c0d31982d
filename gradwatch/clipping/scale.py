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
        if dtype.itemsize == 1:  # float8 has no arithmetic of its own
            for g in group:
                g.copy_(g.float() * here)
        elif dense:
            torch._foreach_mul_(group, here)
        else:
            for g in group:
                g.mul_(here)
