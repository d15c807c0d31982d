"""What a region of several ways is, by the operations in it."""

from __future__ import annotations

from collections.abc import Sequence

from gradwatch.flow import Flow

STATISTICS = frozenset({"LinalgVectorNorm", "Mean", "Norm", "Rsqrt", "Std", "StdMean", "Sum", "Var", "VarMean"})
"""Without a weight beside them these are of a norm that is written out: x * rsqrt(mean(x^2))."""


def kind_of_region(flow: Flow, begin: int, inner: Sequence[int]) -> str:
    """One of :data:`~gradwatch.profile.KINDS`.

    Args:
        flow: which leads to the end of the region alone.
        begin: the operation that all ways begin at.
        inner: those between it and the end, nearest to the output first.
    """
    first = flow.operations[begin]
    operations = [first, *(flow.operations[index] for index in inner)]
    kinds = {o.kind for o in operations}
    weights = weights_on_a_way(flow, inner)
    if "attention" in kinds and weights <= 1:  # those of queries, keys and values
        return "attention"
    if not weights:
        if "norm" in kinds or any(o.name in STATISTICS for o in operations):
            return "norm"
        return next((kind for kind in ("activation", "multiply", "pool", "dropout", "loss") if kind in kinds), "other")
    gates = any(flow.operations[index].kind == "multiply" and len(flow.sends[index]) > 1 for index in (begin, *inner))
    return "multiply" if first.kind == "multiply" or (gates and weights == 1) else "parallel"


def weights_on_a_way(flow: Flow, inner: Sequence[int]) -> int:
    """The most weights that a way through ``inner`` meets; these are in order, nearest to the output first."""
    met: dict[int, int] = {}
    for index in reversed(inner):
        below = max((met.get(e.to, 0) for e in flow.sends[index]), default=0)
        met[index] = below + (flow.operations[index].kind == "weight")
    return max(met.values(), default=0)


def plainness(flow: Flow, nodes: Sequence[int]) -> tuple[int, int]:
    """How little a way does, the least first: that of a skip which changes the shape has one weight and no activation.

    Returns:
        Activations and their like, then weights.
    """
    bends = sum(flow.operations[index].kind in ("activation", "attention") for index in nodes)
    return bends, weights_on_a_way(flow, nodes)
