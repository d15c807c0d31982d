"""What a layer is given: whether the examples differ in it, and whether there is anything at all."""

from __future__ import annotations

import torch
from torch import Tensor

ELEMENTS = 1 << 20
"""Of what a layer is given, about how many are looked at."""


@torch.no_grad()
def input_shares(given: Tensor, sequences: bool) -> Tensor:
    """Three shares of ``given``, float32 on its device; NaN for what cannot be said.

    The first is the part of its mean square that differs from example to example: the variance over the first
    dimension. The second is that over the second dimension, from place to place within an example. The third is the
    share of the examples that are nothing but zeros.

    Args:
        given: [examples, ..., features]; of more than ELEMENTS elements the first examples count.
        sequences: whether three dimensions are [examples, places, features].

    >>> input_shares(torch.tensor([[1.0, 2.0], [1.0, 4.0], [0.0, 0.0]]), sequences=False).tolist()[2]
    0.3333333432674408
    >>> input_shares(torch.ones(8, 3, 2), sequences=True).tolist()
    [0.0, 0.0, 0.0]
    """
    x = given.detach()[: max(2, ELEMENTS * len(given) // max(given.numel(), 1))].float()
    unknown = x.new_full((), torch.nan)
    if len(x) < 2 or not x.numel():
        return unknown.expand(3)
    nothing = (x.flatten(1) == 0).all(1).float().mean()
    x = x / x.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)  # or the squares of a faded signal underflow
    size = x.square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    between = x.var(0, correction=0).mean() / size
    within = x.var(1, correction=0).mean() / size if sequences and x.ndim == 3 and x.shape[1] > 1 else unknown
    return torch.stack([between, within, nothing])
