"""Layers with weights that follow each other with nothing between that bends: together they compute what one would."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwatch.profile import Operation
from gradwatch.records import BoolArray

_STRAIGHT_KINDS = frozenset({"dropout", "embedding", "leaf", "shape", "weight"})
_AVERAGES = frozenset(
    {"AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D", "Mean", "Sum"}
)
_MAY_BEND = frozenset({"CopySlices", "Gather", "Index", "IndexSelect"})
"""They may pick the largest, or what is above 0."""

_BENT = -1


def stacked_weights(operations: Sequence[Operation]) -> tuple[str, ...]:
    """Names of the weights that are followed by others, where all of a network are one linear map, and one would do.

    What follows the last ones may bend, as a softmax or a loss does. There are none where anything else does, or is not
    known not to; nor where they are narrower than both ends, which one layer is not; nor where a weight is used again.

    Args:
        operations: of a probed step, in the order of the forward pass.

    Returns:
        In that order, the last ones left out.

    Example:
        >>> from gradwatch.profile import Weight
        >>> first, last = Weight("0.weight", 1.0, 4, 8, outputs=8), Weight("1.weight", 1.0, 8, 2, outputs=2)
        >>> stacked_weights(
        ...     [
        ...         Operation(0, "Addmm", "weight", "0", 0, (None, None, None), 1.0, weight=first),
        ...         Operation(1, "Addmm", "weight", "1", 0, (None, (0, 0), None), 1.0, weight=last),
        ...     ]
        ... )
        ('0.weight',)
    """
    depths: list[int] = []  # how many weights are behind each operation, itself among them
    nearest: list[set[int]] = []  # and which are the last of them
    followed: set[int] = set()
    for o in operations:
        inputs = [given[0] for given in o.inputs if given is not None]
        below, before = [depths[i] for i in inputs], {w for i in inputs for w in nearest[i]}
        is_weight = o.kind == "weight"
        if is_weight and (_BENT in below or o.weight is None):
            return ()
        followed |= before if is_weight else set()
        bent = _BENT in below or not _is_straight(o)
        depths.append(_BENT if bent else max(below, default=0) + is_weight)
        nearest.append({o.index} if is_weight else before)
    weights = [(o.index, o.weight) for o in operations if o.weight is not None]
    inner = [w for i, w in weights if i in followed]
    given, asked = (
        sum(w.fan_in for i, w in weights if depths[i] == 1),
        sum(w.outputs for i, w in weights if i not in followed),
    )
    narrow = any(w.outputs < min(given, asked) for w in inner)
    again = len({w.name for _, w in weights}) < len(weights)
    return () if narrow or again else tuple(w.name for w in inner)


def are_among(layers: Sequence[str], weights: Sequence[str]) -> BoolArray:
    """bool [L], whether each of ``layers``, modules or parameters, is one of ``weights`` or has one.

    >>> are_among(["0", "2", "2.bias"], ["0.weight", "2.weight"]).tolist()
    [True, True, False]
    """
    names = {part for name in weights for part in (name, name.rpartition(".")[0])}
    return np.array([layer in names for layer in layers], bool)


def _is_straight(o: Operation) -> bool:
    """Whether it is affine in what it is given. What a product's or a sum's other part is, where that has no gradient,
    nobody knows: a mask, as of a hand-written ReLU, or what a straight-through estimator adds."""
    if o.kind == "multiply":
        return o.module_kind.startswith(("Dropout", "AlphaDropout", "DropPath", "StochasticDepth"))
    if o.kind == "norm":  # once it is trained; that of an instance goes by the same name
        return "BatchNorm" in o.module_kind
    if o.kind == "add":
        return not o.constants
    return o.name in _AVERAGES or (o.kind in _STRAIGHT_KINDS and o.name not in _MAY_BEND)
