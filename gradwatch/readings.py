"""What is read off a gradient as it passes: a few numbers, which stay on the device until all are there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from gradwatch.stats import SAFE, TOGETHER, measure

Reading: TypeAlias = "float | Tensor"
"""A float, or on an accelerator a 0-dim tensor that nothing has waited for."""

SAMPLE = 1 << 13
"""Elements up to which all are looked at to find the derivative."""

MATRIX = 1 << 15
"""Elements up to which all of a weight are read, of a larger one about as many."""

SMALL = 0.05
"""Of its largest, the derivative below which an activation passes next to nothing."""

_HALF = (torch.float16, torch.bfloat16)
_SUMMED_IN = {**dict.fromkeys((*_HALF, torch.float32), torch.float32), torch.float64: torch.float64}


def norm(*gradients: Tensor) -> Reading:
    """L2 norm of all of them together, at any size, dtype and scale.

    >>> norm(torch.tensor([3.0, 4.0])), f"{norm(torch.full((4,), 1e-30)):.4g}"
    (5.0, '2e-30')
    """
    g = gradients[0].detach()
    dtype = _SUMMED_IN.get(g.dtype) if len(gradients) == 1 and g.is_cpu and g.layout is torch.strided else None
    if dtype is not None and g.numel() <= TOGETHER:
        # A tenth of measure()'s cost, and as exact as long as the squares neither overflow nor underflow.
        short: float = torch.linalg.vector_norm(g, dtype=dtype).item()
        if SAFE[0] < short < SAFE[1]:
            return short
    exact = measure([g.detach() for g in gradients]).total_norm
    return exact.item() if exact.is_cpu else exact


def weight_norm(weight: Tensor) -> Reading:
    """L2 norm of a matrix or kernel; of a large one by every n-th row, which is right to 1% where rows are alike.

    >>> round(weight_norm(torch.full((2000, 1000), 0.5)), 3)
    707.107
    """
    step = math.ceil(weight.numel() / MATRIX)
    if step == 1 or weight.layout is not torch.strided or len(weight) < 16 * step:
        return norm(weight)
    some = weight[::step]
    return norm(some) * math.sqrt(weight.numel() / some.numel())


@torch.no_grad()
def slopes(sent: Tensor, arrived: Tensor, largest: float) -> list[Reading]:
    """The derivative of an element-wise operation, from the gradient that it sent back for the one that arrived.

    Where next to nothing arrived the derivative is not known. Of many elements every n-th is looked at, where n shares
    no factor with the shape.

    Args:
        sent: gradient with respect to its input.
        arrived: gradient with respect to its output, of the same shape.
        largest: magnitude that the derivative can have.

    Returns:
        Of how many elements it is known, its norm over them, of how many it is not zero, and of how many it is above
        SMALL of ``largest``.

    >>> slopes(torch.tensor([0.6, 0.0, 0.4, 0.0]), torch.tensor([2.0, 1.0, 1.0, 0.0]), largest=7.0)
    [3.0, 0.5, 2.0, 1.0]
    """
    tiny = torch.finfo(arrived.dtype).tiny
    sent, arrived = _sampled(sent.detach(), arrived.detach())
    known = hardshrink(arrived, tiny)  # below, the quotient has no digits
    slope = (sent / known).nan_to_num_(0, 0, 0).abs_()
    size, counted = torch.linalg.vector_norm(slope), (known, slope, slope > SMALL * largest)
    if slope.is_cpu:  # where NumPy counts five times as fast
        elements, nonzero, passing = (float(np.count_nonzero(t.numpy())) for t in counted)
        return [elements, size.item(), nonzero, passing]
    on_device, nonzero_there, passing_there = map(torch.count_nonzero, counted)
    return [on_device, size, nonzero_there, passing_there]


def on_host(readings: Sequence[Reading]) -> list[float]:
    """All of them as floats: one wait for each device."""
    found = list(readings)
    for device in {r.device for r in found if isinstance(r, Tensor)}:
        there = [i for i, r in enumerate(found) if isinstance(r, Tensor) and r.device == device]
        dtype = torch.float32 if device.type == "mps" else torch.float64
        values = torch.stack([torch.as_tensor(found[i]).to(dtype) for i in there]).tolist()
        for i, value in zip(there, values):
            found[i] = value
    return [float(r) for r in found]


def _sampled(*tensors: Tensor) -> list[Tensor]:
    """The same elements of each, SAMPLE at most, in float32 at least."""
    size = tensors[0].numel()
    step = math.ceil(size / SAMPLE)
    while step > 1 and math.gcd(step, size) > 1:
        step += 1
    if step > 1 and all(t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in tensors):
        tensors = tuple(t.permute(0, 2, 3, 1) for t in tensors)  # as they lie in memory, which saves a copy
    taken = [t.reshape(-1)[::step] if step > 1 else t for t in tensors]
    return [t.float() if t.dtype in _HALF else t for t in taken]
