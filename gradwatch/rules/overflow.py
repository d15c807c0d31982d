"""Overflow: a gradient is beyond the largest number of float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradwatch.rules.nonfinite import NonFinite


@dataclass
class Overflow(NonFinite):
    """A gradient is inf or NaN in a model that is called in float16, which ends at 65,504.

    Elsewhere it is for :class:`~gradwatch.rules.NonFinite`; a step that a GradScaler skips for it is for
    :class:`~gradwatch.rules.Skipped`.

    Args:
        patience: steps in a row before the alert.
        recovery: finite steps in a row before the episode is over.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> from gradwatch.history import History
        >>> history = History.from_grad_norms(fc=[1.0])
        >>> history.append(replace(history.latest, step=1, grad_norm=np.array([np.inf]), half=True))
        >>> [alert.message for alert in Overflow().check(history)]
        ['fc: gradient is inf in float16, which ends at 65,504; use a GradScaler, or bfloat16']

    Source: Micikevicius et al., ICLR 2018.
    """

    name: ClassVar[str] = "overflow"
    follows: ClassVar[tuple[str, ...]] = ("not_zeroed", "exploding", "update_ratio", "unstable")
    in_half: ClassVar[bool] = True

    def describe(self, value: float, threshold: float) -> str:
        return f"{super().describe(value, threshold)} in float16, which ends at 65,504; use a GradScaler, or bfloat16"
