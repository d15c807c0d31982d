"""Skip the steps that are spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradwatch.clipping.skip import pass_on, skip_
from gradwatch.clipping.statistics import SpikePolicy
from gradwatch.patterns import check_whole_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


@dataclass(eq=False)
class SkipSpike(SpikePolicy):
    """Skip a step whose total norm is beyond what :class:`SpikeClip` would limit it to, but only so many in a row.

    After ``max_consecutive`` skipped steps all pass until one is normal again: what lasts that long is no spike, and
    skipping what it takes to learn would never end. A step that is not finite passes, and counts for nothing; it is
    for :class:`SkipNonFinite`.

    The total norm is needed at once: on an accelerator this waits for it, once a step.

    Args:
        factor: least ratio of the limit to the median of the norms before.
        z: limit of the robust z-score of the log norm.
        window: norms that count.
        warmup: norms it takes to know what is normal; before, nothing is skipped.
        max_consecutive: steps in a row that may be skipped.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when ``factor`` or ``z`` is not a number.

    Example:
        >>> from gradwatch.stats import measure
        >>> policy = SkipSpike()
        >>> for norm in [1.0] * 20 + [1000.0]:
        ...     g = torch.tensor([norm])
        ...     record = policy.clip_([g], measure([g]))
        >>> g.item(), record.threshold
        (0.0, 3.0)

    Source: Chowdhery et al., "PaLM: scaling language modeling with pathways", JMLR 24, 2023, section 5.1, for passing
    over batches at a spike.
    """

    name: ClassVar[str] = "skip_spike"

    max_consecutive: int = 5

    def __post_init__(self) -> None:
        check_whole_number("SkipSpike: max_consecutive", self.max_consecutive, at_least=1)
        super().__post_init__()
        self._in_a_row = 0

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        total = stats.total_norm.cpu()  # CPU-GPU sync point
        limit, norm = float(self._limit(total)), float(total)
        if isfinite(norm):
            self._in_a_row = self._in_a_row + 1 if norm > limit else 0
        if limit < norm < torch.inf and self._in_a_row <= self.max_consecutive:
            return skip_(gradients, stats, self.name, limit)
        return pass_on(stats, self.name, limit)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._in_a_row = int(state["in_a_row"])
