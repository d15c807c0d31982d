"""What layers are given: how large data are, whether the examples differ, and whether there is anything at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gradwatch.mode import WITH_STATISTICS
from gradwatch.stats import wide

CALLS = 4
"""Of the calls of a layer in a step, how many are looked at; it may be called once per time step."""

ELEMENTS = 1 << 20
"""Of what a layer is given, about how many are looked at."""


NORMALISATIONS = (*WITH_STATISTICS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""What takes the size of a layer's inputs out again."""


class Given(NamedTuple):
    """What one step showed of a layer's inputs; NaN of what is not known."""

    variation: float
    """Share of the mean square that differs from example to example."""
    variation_within: float
    """Share that differs from place to place within an example."""
    given_nothing: float
    """Share of the examples that are nothing but zeros."""
    data_rms: float
    """Root mean square of data. Behind a layer that is frozen nothing is known of any: what that makes is none."""


class GivenInputs:
    """Looks, in one step, at what layers are called with: of several calls the one whose examples differ most.

    Example:
        >>> fc, seen = nn.Linear(2, 1), GivenInputs()
        >>> seen.listen(0, False, fc, (torch.tensor([[5.0, -5.0], [0.0, 0.0]]),))
        >>> seen.take()
        {0: Given(variation=0.5, variation_within=nan, given_nothing=0.5, data_rms=5.0)}
    """

    def __init__(self) -> None:
        self._calls: dict[int, list[Tensor]] = {}
        """Of each row and call [4], as :class:`Given`."""
        self._is_behind_frozen = False
        self.dtypes: set[torch.dtype] = set()
        """What the layers computed in."""

    def listen(self, row: int, is_normalised: bool, module: nn.Module, args: tuple[Any, ...]) -> None:
        """As a forward pre-hook of a layer with weights; where it ``is_normalised``, the size of data is no matter."""
        given = args[0] if args else None
        given = given.data if isinstance(given, PackedSequence) else given
        if not isinstance(given, Tensor):
            return
        device = given.device.type
        self.dtypes.add(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else given.dtype)
        calls = self._calls.setdefault(row, [])
        if len(calls) < CALLS and given.is_floating_point() and given.ndim >= 2:
            shares = given.new_full((3,), torch.nan, dtype=torch.float32)
            if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)):  # their examples may be in any dimension
                shares = input_shares(given, sequences=isinstance(module, nn.Linear))
            is_unknown = self._is_behind_frozen or is_normalised
            rms = given.new_full((), torch.nan) if is_unknown else data_rms(given)
            calls.append(torch.cat([shares, rms.float().view(1)]))
        self._is_behind_frozen |= not any(p.requires_grad for p in module.parameters())

    def take(self) -> dict[int, Given]:
        """What was seen of each row, from the device."""
        return {
            row: Given(*_most_different(torch.stack(calls).tolist())) for row, calls in self._calls.items() if calls
        }


@torch.no_grad()
def data_rms(given: Tensor) -> Tensor:
    """0-dim on its device, the root mean square of data: of what no gradient goes through; NaN of anything else.

    Elements of exactly zero do not count: they are what is not there, as of one-hot vectors, counts and padding.

    Args:
        given: [examples, ...]; of more than ELEMENTS elements the first examples count.

    >>> data_rms(torch.tensor([[-5.0, 0.0], [0.0, 0.0]])).item()
    5.0
    """
    x = given[: max(1, ELEMENTS * len(given) // max(given.numel(), 1))]
    if given.requires_grad or not x.numel():
        return torch.full((), torch.nan, device=given.device)
    size: Tensor = torch.linalg.vector_norm(x, dtype=wide(x)) / torch.count_nonzero(x).sqrt()
    return size


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


def _most_different(calls: Sequence[Sequence[float]]) -> Sequence[float]:
    """The call whose examples differ most, of those of which that is known if there are any.

    >>> _most_different([[np.nan, np.nan, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    [0.0, 0.0, 0.0]
    """
    return max(calls, key=lambda call: (not np.isnan(call[0]), call[0], -call[2]))
