"""Clip by a percentile of the norms so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.limit import limit_total_
from gradwatch.clipping.statistics import NormWindow, number, quantile, where
from gradwatch.patterns import check_number, check_whole_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


@dataclass(eq=False)
class AutoClip:
    r"""Limit the total norm to a percentile of the total norms of the last steps, this one included.

    ``g <- g * min(1, q / |g|)``, ``q`` the ``percentile`` of the norms before clipping. With the 10th percentile,
    which the paper found best, nine steps of ten are clipped: nearly all steps get the same, small norm.

    It departs from the paper where that fails. A norm that is NaN or inf does not count, as it would make every later
    limit NaN; nor does one of zero, as a tenth of zeros would make the limit zero and end training. And the paper's
    window is the whole run, in which the first steps count for ever and each step costs more than the one before.

    Args:
        percentile: of the norms, from 0 to 100, which becomes the limit.
        window: norms that count. Of 1,000 the limit is the percentile asked for to within 1 (standard deviation, at
            10), and with fewer it is less certain; with more it follows training later.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when ``percentile`` is not a number.

    Example:
        >>> from gradwatch.stats import measure
        >>> policy = AutoClip(percentile=50)
        >>> for norm in [1.0, 2.0, 9.0]:
        ...     g = torch.tensor([norm])
        ...     record = policy.clip_([g], measure([g]))
        >>> float(record.threshold), round(g.item(), 4)
        (2.0, 2.0)

    Source: Seetharaman, Wichern, Pardo and Le Roux, "AutoClip: adaptive gradient clipping for source separation
    networks", MLSP 2020, algorithm 1.
    """

    percentile: float = 10.0
    window: int = 1000

    def __post_init__(self) -> None:
        check_number("AutoClip: percentile", self.percentile, at_least=0, at_most=100)
        check_whole_number("AutoClip: window", self.window, at_least=1)
        self._window = NormWindow(self.window)

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        self._window.add(number(stats.total_norm))
        limit = quantile(self._window.norms, self.percentile / 100)
        return limit_total_(gradients, stats, where(limit > 0, limit, math.inf), "autoclip")

    def state_dict(self) -> dict[str, Any]:
        return self._window.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._window.load_state_dict(state)
