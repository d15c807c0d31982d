"""Where a gradient flows: from each operation to those before it, and how much of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gradwatch.graph_nodes import PRESERVING
from gradwatch.profile import Operation

SEEN_OUTSIDE = 1e-3
"""Share of a gradient beyond what operations of the model sent, from which some of it came from the caller."""


class Edge(NamedTuple):
    """What one operation sends to another: the index of that one, the L2 norm, and to which of its outputs."""

    to: int
    norm: float
    output: int = 0


@dataclass(frozen=True)
class Flow:
    """The operations that a gradient came to, without those that only pass it on.

    An operation's index is below those of all that send to it.

    Args:
        operations: all of them, by their index.
        sends: of each operation that is left, what it sends.
        tops: those whose gradient comes from outside of the model.
    """

    operations: Sequence[Operation]
    sends: Mapping[int, tuple[Edge, ...]]
    tops: frozenset[int]

    def norm(self, index: int) -> float:
        """Of the gradient that arrives at an operation's output."""
        return self.operations[index].grad_norm

    @cached_property
    def arrives(self) -> Mapping[int, Sequence[Edge]]:
        """Of each operation that is sent something, from which (in place of to which) and how much."""
        found: dict[int, list[Edge]] = {}
        for index, edges in self.sends.items():
            for to, norm, output in edges:
                found.setdefault(to, []).append(Edge(index, norm, output))
        return found

    def to_the_deepest(self) -> Flow:
        """What of it leads to the deepest operation: that furthest from the top, by weights and then by operations."""
        depths: dict[int, tuple[int, int]] = {}
        for index in sorted(self.sends, reverse=True):
            weights, steps = depths.setdefault(index, (0, 0))
            reached = weights + (self.operations[index].kind == "weight"), steps + 1
            depths.update((e.to, reached) for e in self.sends[index] if depths.get(e.to, (0, 0)) < reached)
        if not depths:
            return self
        deepest = max(depths, key=lambda index: (depths[index], -index))
        leads: dict[int, tuple[Edge, ...]] = {deepest: ()}
        for index in sorted(self.sends):
            if index > deepest and (kept := tuple(e for e in self.sends[index] if e.to in leads)):
                leads[index] = kept
        return Flow(self.operations, leads, self.tops & leads.keys())


def flow(operations: Sequence[Operation]) -> Flow:
    """The flow through ``operations``, which are in the order of the forward pass.

    >>> relu = Operation(1, "Relu", "activation", "act", 0, ((0, 0),), 2.0)
    >>> flow((Operation(0, "Addmm", "weight", "fc", 0, (None,), 1.5), relu)).sends
    {1: (Edge(to=0, norm=1.5, output=0),), 0: ()}
    """
    inputs: dict[int, list[Edge]] = {}
    arrived: dict[int, list[float]] = {}
    for o in reversed(operations):
        # What sends nothing but zeros counts where it was sent something: there the gradient ends.
        if o.calls and (o.grad_norm != 0 or o.index in arrived):
            inputs[o.index] = []
            for given, norm in zip(o.inputs, o.sent or (math.nan,) * len(o.inputs)):
                if given is not None and operations[given[0]].calls:
                    edge = Edge(given[0], operations[given[0]].grad_norm if math.isnan(norm) else norm, given[1])
                    inputs[o.index].append(edge)
                    arrived.setdefault(edge.to, []).append(edge.norm)

    def moves(index: int) -> bool:
        return operations[index].name in PRESERVING and len(inputs[index]) == 1

    def origin(edge: Edge) -> Edge:
        while moves(edge.to):
            edge = inputs[edge.to][0]._replace(norm=edge.norm)
        return edge

    sends = {index: tuple(map(origin, edges)) for index, edges in inputs.items() if not moves(index)}
    tops = {
        origin(Edge(index, math.nan)).to
        for index in inputs
        if _comes_from_outside(operations[index], arrived.get(index, ()))
    }
    return Flow(operations, sends, frozenset(tops))


def _comes_from_outside(operation: Operation, arrived: Iterable[float]) -> bool:
    """Whether part of its gradient is from the caller of the model, as far as norms can tell."""
    norms = list(arrived)
    if not norms or not operation.outlet:
        return not norms
    most, least = math.fsum(norms), norms[0] if len(norms) == 1 else 0.0
    return not least * (1 - SEEN_OUTSIDE) <= operation.grad_norm <= most * (1 + SEEN_OUTSIDE)
