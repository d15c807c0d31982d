"""Layers with weights that follow each other with nothing between that bends: together they compute what one would."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwatch.profile import Operation
from gradwatch.records import BoolArray

_STRAIGHT_KINDS = frozenset({"add", "dropout", "embedding", "leaf", "shape", "weight"})
_STRAIGHT = frozenset(
    {"AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D", "Mean", "Sum"}
    | {"BatchNormImplIndex", "CudnnBatchNorm", "MiopenBatchNorm", "NativeBatchNorm"}
)
"""Averages, and what is an affine map once it is trained."""

_MAY_BEND = frozenset({"CopySlices", "Gather", "Index", "IndexSelect"})
"""They may pick the largest, or what is above 0."""

_BENT = -1


def stacked_weights(operations: Sequence[Operation]) -> tuple[str, ...]:
    """Names of the weights that together are one linear map of what a network is given, where one would do.

    What follows the last of them may bend, as a softmax or a loss does. There are none where anything else does, or is
    not known not to; nor where they are narrower between than at both ends, which one layer is not; nor where a weight
    is used again and again.

    Args:
        operations: of a probed step, in the order of the forward pass.

    Returns:
        In that order, at least two; or none.

    Example:
        >>> from gradwatch.profile import Weight
        >>> first, last = Weight("0.weight", 1.0, 4, 8, outputs=8), Weight("1.weight", 1.0, 8, 2, outputs=2)
        >>> stacked_weights(
        ...     [
        ...         Operation(0, "Addmm", "weight", "0", 0, (None, None, None), 1.0, weight=first),
        ...         Operation(1, "Addmm", "weight", "1", 0, (None, (0, 0), None), 1.0, weight=last),
        ...     ]
        ... )
        ('0.weight', '1.weight')
    """
    depths: list[int] = []  # how many weights are behind each operation, itself among them
    for o in operations:
        below = [depths[given[0]] for given in o.inputs if given is not None]
        if o.kind == "weight" and (_BENT in below or o.weight is None):
            return ()
        bent = _BENT in below or not _is_straight(o)
        depths.append(_BENT if bent else max(below, default=0) + (o.kind == "weight"))
    weights = [(depths[o.index], o.weight) for o in operations if o.weight is not None]
    deepest = max((depth for depth, _ in weights), default=0)
    ends = [w.fan_in for depth, w in weights if depth == 1] + [w.outputs for depth, w in weights if depth == deepest]
    narrow = any(w.outputs < min(ends) for depth, w in weights if depth < deepest)
    again = len({w.name for _, w in weights}) < len(weights)
    return () if deepest < 2 or narrow or again else tuple(w.name for _, w in weights)


def are_among(layers: Sequence[str], weights: Sequence[str]) -> BoolArray:
    """bool [L], whether each of ``layers``, modules or parameters, is one of ``weights`` or has one.

    >>> are_among(["0", "2", "2.bias"], ["0.weight", "2.weight"]).tolist()
    [True, True, False]
    """
    return np.isin(layers, [part for name in weights for part in (name, name.rpartition(".")[0])])


def _is_straight(o: Operation) -> bool:
    """Whether it is affine in what it is given: to multiply by what has no gradient may be a hand-written ReLU."""
    if o.kind == "multiply":
        return "Drop" in o.module_kind
    return o.name in _STRAIGHT or (o.kind in _STRAIGHT_KINDS and o.name not in _MAY_BEND)
