"""Skip the steps whose gradients are not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.skip import TooManySkipped, pass_on, skip_
from gradwatch.patterns import check_whole_number
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured

NAMED = 3
"""Parameters that the error names."""


@dataclass(eq=False)
class SkipNonFinite:
    """Skip a step with a NaN or inf in any gradient, and stop the run when there are too many in a row.

    One bad batch costs one step, and not the model. Many in a row are the model: without an end to the patience the run
    would go on without learning anything.

    Where a GradScaler is at work, which skips such steps to find its scale, they are left to it and do not count.

    The total norm is needed at once: on an accelerator this waits for it, once a step.

    Args:
        max_consecutive: steps in a row that may be skipped. The next one is skipped and raises.

    Raises:
        ValueError: when ``max_consecutive`` is not a whole number from 0.
        TypeError: when it is not a number.

    Example:
        >>> from gradwatch.stats import measure
        >>> policy = SkipNonFinite(max_consecutive=1)
        >>> for value in [1.0, float("nan"), float("inf")]:
        ...     g = torch.tensor([3.0, value])
        ...     record = policy.clip_([g], measure([g]))
        Traceback (most recent call last):
        ...
        gradwatch.clipping.skip.TooManySkipped: SkipNonFinite: the gradients are not finite for 2 steps in a row, \
max_consecutive=1 may be skipped: gradient 0 (1 of 1)

    Source: Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2, for passing over such steps.
    """

    max_consecutive: int = 10

    def __post_init__(self) -> None:
        check_whole_number("SkipNonFinite: max_consecutive", self.max_consecutive, at_least=0)
        self._in_a_row = 0

    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        """Raises TooManySkipped after ``max_consecutive`` skipped steps in a row, on all ranks alike."""
        finite = isfinite(float(stats.total_norm))  # CPU-GPU sync point
        if finite:
            self._in_a_row = 0
        if finite or stats.scaled:
            return pass_on(stats, "skip_non_finite", inf)
        self._in_a_row += 1
        record = skip_(gradients, stats, "skip_non_finite", inf)
        if self._in_a_row > self.max_consecutive:
            raise TooManySkipped(
                f"SkipNonFinite: the gradients are not finite for {self._in_a_row} steps in a row, "
                f"max_consecutive={self.max_consecutive} may be skipped: {_culprits(stats)}"
            )
        return record

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._in_a_row = int(state["in_a_row"])


def _culprits(stats: Measured) -> str:
    """The first parameters whose gradients are not finite, and how many of all they are."""
    bad = torch.nonzero(~torch.isfinite(stats.norms)).flatten().tolist()
    names = [stats.names[i] if stats.names else f"gradient {i}" for i in bad[:NAMED]]
    more = ", ..." if len(bad) > NAMED else ""
    return f"{', '.join(names)}{more} ({len(bad)} of {len(stats.norms)})"
