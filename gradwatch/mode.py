"""In which mode a model was when it was called, and how much its dropout layers drop."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import nn

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


class OfModel(NamedTuple):
    """What one step showed of the model; NaN where it was not called."""

    dropped: float
    """The largest share that a dropout layer sets to zero, 0 without one."""
    evaluates: float
    """1 where it was in evaluation mode and has layers to which that makes a difference, else 0."""


class Mode:
    """Looks, in one step, at the modules of a model when it is called.

    Example:
        >>> import torch
        >>> model, mode = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9)), Mode()
        >>> mode.listen(model, (), None)
        >>> mode.take()
        OfModel(dropped=0.9, evaluates=0.0)
        >>> mode.listen(model.eval(), (), None)
        >>> mode.take()
        OfModel(dropped=0.0, evaluates=1.0)
    """

    def __init__(self) -> None:
        self._seen = OfModel(math.nan, math.nan)

    def listen(self, model: nn.Module, args: Any, output: Any) -> None:
        """As a forward hook of the model."""
        dropout = [m for m in model.modules() if isinstance(m, _DROPOUT) and m.p > 0]
        norms = any(isinstance(m, _NORMS) and m.track_running_stats for m in model.modules())
        dropped = max((m.p for m in dropout if m.training), default=0.0)
        self._seen = OfModel(dropped, float(not model.training and bool(dropout or norms)))

    def take(self) -> OfModel:
        """What was seen of the last call."""
        return self._seen
