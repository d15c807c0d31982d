"""In which mode a model was when it was called, and how much its dropout layers drop."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor, nn

_WITH_DROPOUT = (nn.RNNBase, nn.MultiheadAttention)
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

WITH_STATISTICS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
"""Normalisations that may keep running statistics."""


class OfModel(NamedTuple):
    """What one step showed of the model; NaN where it was not called."""

    dropped: float
    """The largest share that a dropout layer sets to zero, 0 without one."""
    evaluates: float
    """1 where it was in evaluation mode with all of its layers to which that makes a difference, else 0."""


class Mode:
    """Looks, in one step, at the modules of a model when it is called.

    Example:
        >>> import torch
        >>> model, mode = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9)), Mode()
        >>> mode.listen(model, (), None)
        >>> mode.take()
        OfModel(dropped=0.9, evaluates=0.0)
    """

    def __init__(self) -> None:
        self._calls: list[OfModel] = []

    def listen(self, model: nn.Module, args: Any, output: Any) -> None:
        """As a forward hook of the model."""
        modules = [*model.modules()]
        dropout = [(m, p) for m in modules if isinstance(m, _DROPOUT) and (p := _number(m.p)) > 0]
        inner = [m for m in modules if isinstance(m, _WITH_DROPOUT) and m.dropout > 0]
        norms = [m for m in modules if isinstance(m, WITH_STATISTICS) and m.track_running_stats]
        dropped = max((p for m, p in dropout if m.training), default=0.0)
        with_modes = [*(m for m, _ in dropout), *inner, *norms]
        is_off = not model.training and bool(with_modes) and not any(m.training for m in with_modes)
        self._calls.append(OfModel(dropped, float(is_off)))

    def take(self) -> OfModel:
        """What was seen of all calls: what one of them drops, and whether none was in training mode."""
        if not self._calls:
            return OfModel(math.nan, math.nan)
        return OfModel(max(c.dropped for c in self._calls), min(c.evaluates for c in self._calls))


def _number(p: Any) -> float:
    """Of what may be learned."""
    return float(p.detach()) if isinstance(p, Tensor) else float(p)
