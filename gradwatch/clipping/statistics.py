"""What a policy with a memory knows of the norms so far, kept where the norms are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gradwatch.history import MAD_TO_STD
from gradwatch.patterns import check_number, check_whole_number
from gradwatch.records import FloatArray

Number: TypeAlias = Any
"""np.float64 of a norm on the CPU, where a call of torch on one number costs 3 us; elsewhere a 0-dim tensor, which is
never looked at, so that nothing waits. The equations are written once, for either."""

Numbers: TypeAlias = Any
"""The same of several, 1-d."""


def number(norm: Tensor) -> Number:
    """``norm`` (0-dim) to calculate with, in float64 where the device has it."""
    if norm.device.type == "cpu":
        return np.float64(norm.item())
    return norm if norm.device.type == "mps" else norm.double()


def functions(value: Number) -> Any:
    """The module with the functions for ``value``: torch or NumPy."""
    return torch if isinstance(value, Tensor) else np


def where(condition: Number, value: Number, other: Number) -> Number:
    """``value`` where ``condition`` holds, else ``other``; both are there, as a tensor's condition is not looked at."""
    if isinstance(condition, Tensor):
        return torch.where(condition, value, other)
    return value if condition else other


def beside(value: Number, norm: Number) -> Number:
    """``value`` where ``norm`` is, which it is not after a checkpoint was loaded or the model was moved."""
    if isinstance(norm, Tensor):
        return torch.as_tensor(value, dtype=norm.dtype, device=norm.device)
    return to_host(value)


def to_host(value: Number) -> Any:
    """``value`` as NumPy has it; from an accelerator that waits."""
    return value.double().cpu().numpy() if isinstance(value, Tensor) else value


def counts(norm: Number) -> Number:
    """Whether ``norm`` says anything of what is normal: not where it is NaN, inf, or zero for want of a gradient."""
    return (norm > 0) & (norm < np.inf)


def quantile(values: Numbers, share: float) -> Number:
    """The quantile of those ``values`` that are not NaN, between two of them interpolated; NaN of none.

    >>> float(quantile(np.array([np.nan, 1.0, 3.0, 2.0]), 0.25))
    1.5
    """
    if isinstance(values, Tensor):
        return torch.nanquantile(values, share)
    kept = np.sort(values[~np.isnan(values)])  # a tenth of the time of np.nanquantile
    if not len(kept):
        return np.float64(np.nan)
    position = share * (len(kept) - 1)
    low = int(position)
    return kept[low] + (position - low) * (kept[min(low + 1, len(kept) - 1)] - kept[low])


def spike_limit(norms: Numbers, factor: float, z: float, warmup: int) -> Number:
    """``median * max(factor, exp(z * s))`` of ``norms``; inf of fewer than ``warmup``.

    ``s`` is the robust standard deviation of the log norms: 1.4826 times their median absolute deviation. A NaN in
    ``norms`` stands for none.

    >>> norms = np.array([np.nan, 1.0, 2.0, 3.0])
    >>> [float(spike_limit(norms, factor=10.0, z=1.0, warmup=n)) for n in (3, 4)]
    [20.0, inf]
    """
    xp = functions(norms)
    center = quantile(norms, 0.5)
    with np.errstate(over="ignore"):
        noise = xp.exp(z * MAD_TO_STD * quantile(xp.abs(xp.log(norms) - xp.log(center)), 0.5))
        limit = center * where(noise > factor, noise, factor)
    return where((~xp.isnan(norms)).sum() >= warmup, limit, np.inf)


class NormWindow:
    """The last norms that counted, oldest first, NaN where there are none yet.

    Args:
        size: how many.

    Example:
        >>> window = NormWindow(3)
        >>> for norm in [1.0, float("nan"), 2.0]:
        ...     window.add(np.float64(norm))
        >>> window.norms.tolist()
        [nan, 1.0, 2.0]
    """

    def __init__(self, size: int) -> None:
        self.norms: Numbers = np.full(size, np.nan)

    def add(self, norm: Number) -> None:
        """Take ``norm`` in, where it counts."""
        xp = functions(norm)
        norms = beside(self.norms, norm)
        self.norms = where(counts(norm), xp.concatenate((norms[1:], norm.reshape(1))), norms)

    def state_dict(self) -> dict[str, Any]:
        return {"norms": to_host(self.norms).copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a longer window the latest norms are kept."""
        size = len(self.norms)
        saved: FloatArray = np.array(state["norms"], np.float64)[-size:]
        self.norms = np.append(np.full(size - len(saved), np.nan), saved)


@dataclass(eq=False)
class SpikePolicy:
    """What the policies that know a spike have in common: up to which norm a step is normal.

    The norms before clipping count, those of spikes too: they move no median while they are less than half of the
    window, and once they are half of it they are the new level.
    """

    name: ClassVar[str]

    factor: float = 3.0
    # Norms of healthy runs stay within a factor of 3 of their recent median.
    z: float = 4.0
    # Four robust standard deviations of the log norm: one normal step in 30,000 is beyond.
    window: int = 100
    warmup: int = 20

    def __post_init__(self) -> None:
        check_number(f"{type(self).__name__}: factor", self.factor, at_least=1)
        check_number(f"{type(self).__name__}: z", self.z, at_least=0)
        check_whole_number(f"{type(self).__name__}: warmup", self.warmup, at_least=1)
        check_whole_number(f"{type(self).__name__}: window", self.window, at_least=self.warmup)
        self._window = NormWindow(self.window)

    def state_dict(self) -> dict[str, Any]:
        return self._window.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._window.load_state_dict(state)

    def _limit(self, total_norm: Tensor) -> Number:
        """The limit for ``total_norm`` from the norms before it, which it then joins."""
        norm = number(total_norm)
        limit = spike_limit(beside(self._window.norms, norm), self.factor, self.z, self.warmup)
        self._window.add(norm)
        return limit
