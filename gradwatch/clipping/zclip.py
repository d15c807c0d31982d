"""Clip the total norm by its z-score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradwatch.clipping.limit import limit_total_
from gradwatch.clipping.statistics import Number, beside, counts, functions, number, to_host, where
from gradwatch.patterns import check_number, check_whole_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured

EPSILON = 1e-6
"""Of the mean, added to the standard deviation, so that what is constant but for rounding is not clipped. The authors'
program adds 1e-6 itself, with which no spike is found in norms that are smaller."""


class _Moments(NamedTuple):
    """What is known of the norms so far, and how many of the latest were beyond the limit."""

    count: Number
    mean: Number
    std: Number
    beyond: Number


@dataclass(eq=False)
class ZClip:
    r"""Limit the total norm where its z-score is beyond a limit, the more the further it is beyond.

    With the exponential mean ``m`` and standard deviation ``s`` of the norms before, and ``z_t = (|g| - m) / s``::

        g <- g * (m + s * z**2 / z_t) / |g|       where z_t > z
        m <- alpha * m + (1 - alpha) * n          n the norm after clipping
        s <- sqrt(alpha * s**2 + (1 - alpha) * (n - m)**2)

    The first ``warmup`` norms are not clipped: ``m`` and ``s`` begin as their mean and standard deviation. A spike
    among them makes ``s`` large: after one of 1,000 times the norm, one of 10 times is not seen for some 265 steps. And
    where the level falls, ``s`` takes 66 steps for each factor of e. :class:`SpikeClip` has neither weakness.

    It departs from the paper where that fails. A norm that is NaN, inf or zero does not count: one NaN would leave all
    later steps unclipped, and zeros would make the limit zero. And norms that double for good would be clipped to the
    old level for ever, as only clipped norms count; here the true ones do after ``max_consecutive`` clipped steps in a
    row.

    Args:
        alpha: share of the old mean and variance that stays at each step, between 0 and 1.
        z: limit of the z-score.
        warmup: norms it takes to know what is normal.
        max_consecutive: clipped steps in a row that count as clipped.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when ``alpha`` or ``z`` is not a number.

    Example:
        >>> from gradwatch.stats import measure
        >>> policy = ZClip(warmup=4)
        >>> for norm in [1.0, 3.0, 1.0, 3.0, 27.0]:  # mean 2, standard deviation 1, and a z-score of 25
        ...     g = torch.tensor([norm])
        ...     record = policy.clip_([g], measure([g]))
        >>> round(g.item(), 4)
        2.25

    Source: Kumar, Owen, Chowdhury and Güra, "ZClip: adaptive spike mitigation for LLM pre-training", arXiv:2504.02507,
    2025, algorithm 1.
    """

    alpha: float = 0.97
    z: float = 2.5
    warmup: int = 25
    max_consecutive: int = 25

    def __post_init__(self) -> None:
        check_number("ZClip: alpha", self.alpha, at_least=0, at_most=1)
        check_number("ZClip: z", self.z, above=0)
        check_whole_number("ZClip: warmup", self.warmup, at_least=1)
        check_whole_number("ZClip: max_consecutive", self.max_consecutive, at_least=0)
        self._moments = _Moments(*np.zeros(4))

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        norm = number(stats.total_norm)
        limit, self._moments = self._next(norm, _Moments(*(beside(value, norm) for value in self._moments)))
        return limit_total_(gradients, stats, limit, "zclip")

    def _next(self, norm: Number, old: _Moments) -> tuple[Number, _Moments]:
        """The limit for ``norm``, and the moments with it."""
        kept, warm = counts(norm), old.count < self.warmup
        with np.errstate(all="ignore"):
            excess, allowed = norm - old.mean, self.z * (old.std + EPSILON * old.mean)
            beyond = kept & ~warm & (excess > allowed)
            limit = old.mean + allowed * where(beyond, allowed / excess, 1.0)
            entering = where(beyond & (old.beyond < self.max_consecutive), limit, norm)
            change = where(kept, entering - old.mean, 0.0)
            weight = kept * where(warm, 1 / (old.count + 1), 1 - self.alpha)
            # The variance of all norms so far is taken from the old mean; later it is from the new one, as published.
            square = weight * (1 - weight) * where(warm, 1.0, 1 - weight)
            moments = _Moments(
                old.count + kept,
                old.mean + weight * change,
                # forms no squares of norms, which could over- or underflow
                functions(norm).hypot((1 - weight) ** 0.5 * old.std, square**0.5 * change),
                (old.beyond + beyond) * (beyond | ~kept),
            )
        return where(warm, np.inf, limit), moments

    def state_dict(self) -> dict[str, Any]:
        return {name: float(to_host(value)) for name, value in self._moments._asdict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._moments = _Moments(*(np.float64(state[name]) for name in _Moments._fields))
