"""Clip the total norm of a step that is a spike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradwatch.clipping.limit import limit_total_
from gradwatch.clipping.statistics import SpikePolicy
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


@dataclass(eq=False)
class SpikeClip(SpikePolicy):
    r"""Limit the total norm to what is normal: a factor above the median of the norms before, more if they are noisy.

    ``g <- g * min(1, m * max(factor, exp(z * s)) / |g|)``: ``m`` is the median of the last norms before clipping, ``s``
    the robust standard deviation of their logs, 1.4826 times the median absolute deviation. No spike can move the
    two, however high and wherever it falls, and a norm that is NaN, inf or zero does not count. A level that changes
    for good, up or down, is the new normal after ``window // 2 + 1`` steps.

    Args:
        factor: least ratio of the limit to the median.
        z: limit of the robust z-score of the log norm.
        window: norms that count.
        warmup: norms it takes to know what is normal; before, nothing is clipped.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when ``factor`` or ``z`` is not a number.

    Example:
        >>> from gradwatch.stats import measure
        >>> policy = SpikeClip()
        >>> for norm in [1.0] * 20 + [1000.0]:
        ...     g = torch.tensor([norm])
        ...     record = policy.clip_([g], measure([g]))
        >>> round(g.item(), 4)
        3.0

    Source: Leys et al., J. Exp. Soc. Psychol. 49, 2013, for the median absolute deviation as the measure of spread.
    """

    name: ClassVar[str] = "spike_clip"

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        return limit_total_(gradients, stats, self._limit(stats.total_norm), self.name)
