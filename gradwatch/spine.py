"""The spine of a backward pass: the operations that every way to the deepest one passes, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gradwatch.flow import Edge, Flow
from gradwatch.profile import KINDS, Branch, Operation, Segment
from gradwatch.regions import kind_of_region, plainness

UNCHANGED = 1e-5
"""A squared gain that is no further from 1 is that of an operation which only moves values."""

NESTED = 12
"""Residual blocks within the branches of others, down to which these are told apart."""

_MULTIPLYING = {"Drop": "dropout", "Norm": "norm"}
"""By a part of the class's name what a module is where it is not one operation."""


class Stretch(NamedTuple):
    """From one operation of the spine to the next, with what lies between: all further from the output come later."""

    begin: int
    sends: Sequence[Edge]
    inner: Sequence[int]
    end: int


def spine(flow: Flow) -> tuple[Segment, ...]:
    """Its segments, from the output to the input, as far as any gradient gets.

    Every way from the top to the deepest operation passes the ends of the segments, so that no way is chosen: gains are
    ratios of the gradients that arrive at these, and their logarithms add up to that of the whole.
    """
    flow = flow.to_the_deepest()
    nodes = sorted(flow.sends, reverse=True)
    # Several outputs have one virtual top, and the spine begins where they have met.
    begin = next(_cuts([Edge(top, math.nan) for top in flow.tops], nodes, flow), None)
    if begin is None:
        return ()
    below = nodes[nodes.index(begin) + 1 :]
    return _along(flow, begin, flow.sends[begin], below, flow.norm(nodes[-1]), NESTED)


def _cuts(sends: Sequence[Edge], nodes: Iterable[int], flow: Flow) -> Iterator[int]:
    """Those of ``nodes``, from the output to the input, that nothing goes past."""
    reach = min((e.to for e in sends), default=-1)
    for index in nodes:
        if index == reach:
            yield index
        reach = min(reach, min((e.to for e in flow.sends[index]), default=reach))


def _stretches(begin: int, sends: Sequence[Edge], nodes: Sequence[int], flow: Flow) -> Iterator[Stretch]:
    after = 0
    for end in _cuts(sends, nodes, flow):
        place = nodes.index(end, after)
        yield Stretch(begin, sends, nodes[after:place], end)
        begin, sends, after = end, flow.sends[end], place + 1


def _along(
    flow: Flow, begin: int, sends: Sequence[Edge], nodes: Sequence[int], last: float, nested: int
) -> tuple[Segment, ...]:
    """The segments from ``begin`` through ``nodes`` to the last of these.

    Args:
        sends: what ``begin`` sends on this way.
        last: norm of what comes out at the end of it.
    """
    segments = []
    norm = flow.norm(begin)
    for stretch in _stretches(begin, sends, nodes, flow):
        after = last if stretch.end == nodes[-1] else flow.norm(stretch.end)
        gain = squared_ratio(after, norm)
        operation = flow.operations[stretch.begin]
        moves = operation.kind in ("add", "shape") and not stretch.inner
        if moves and abs(gain - 1) < UNCHANGED:
            continue
        segments.append(_segment(flow, stretch, gain, norm, nested))
        if not after:
            break  # what zero becomes tells nothing
        norm = after
    return tuple(segments)


def squared_ratio(after: float, before: float) -> float:
    """``(after / before)^2``, inf where that overflows and NaN of 0 / 0."""
    if not before:
        return math.inf if after > 0 else math.nan
    ratio = after / before
    return ratio * ratio


def _segment(flow: Flow, stretch: Stretch, gain: float, norm: float, nested: int) -> Segment:
    operation = flow.operations[stretch.begin]
    if not stretch.inner:
        return _described(operation, _kind_of_one(operation), gain, norm)
    block = _block(flow, stretch, norm, nested) if operation.kind == "add" and nested else None
    if block is not None:
        skip, branches = block
        return _described(operation, "residual", gain, norm, skip, branches)
    return _described(operation, kind_of_region(flow, stretch.begin, stretch.inner), gain, norm)


def _described(
    o: Operation, kind: str, gain: float, norm: float, skip: float = math.nan, branches: tuple[Branch, ...] = ()
) -> Segment:
    derivative, weight = (o.derivative, o.weight) if kind in ("activation", "weight") else (None, None)
    return Segment(o.module, kind, o.name, gain, norm, o.call, skip, branches, derivative, weight)


def _kind_of_one(operation: Operation) -> str:
    if operation.kind == "multiply":  # with a mask, or the weights of a norm
        return next((kind for name, kind in _MULTIPLYING.items() if name in operation.module_kind), "multiply")
    return operation.kind if operation.kind in KINDS else "other"


def _block(flow: Flow, stretch: Stretch, norm: float, nested: int) -> tuple[float, tuple[Branch, ...]] | None:
    """Of a residual block the squared gain of its skip, and the ways beside it; None of what is none."""
    ends = {e.output for index in (stretch.begin, *stretch.inner) for e in flow.sends[index] if e.to == stretch.end}
    if len(ends) > 1:
        return None  # ways that lead to several tensors
    direct, others, sums = _summands(flow, stretch)
    inner = [index for index in stretch.inner if index not in sums]
    ways = [
        _Way(sorted(way, reverse=True), [e for e in others if e.to in way])
        for way in _separate(flow, inner, stretch.end)
    ]
    skipping = math.fsum(e.norm for e in direct)
    if not direct:
        skip = _projection(flow, ways)
        if skip is None:
            return None
        skipping = _comes_out(flow, skip, stretch.end)
        ways.remove(skip)
    branches = []
    for way in ways:
        out = _comes_out(flow, way, stretch.end)
        segments = _along(flow, stretch.begin, way.sends, [*way.nodes, stretch.end], out, nested - 1)
        branches.append(Branch(squared_ratio(out, norm), segments))
    return squared_ratio(skipping, norm), tuple(branches)


class _Way(NamedTuple):
    """One of several that have no operation in common, from the output to the input, and what is sent into it."""

    nodes: list[int]
    sends: list[Edge]


def _summands(flow: Flow, stretch: Stretch) -> tuple[list[Edge], list[Edge], set[int]]:
    """What a sum sends to the end of the stretch, what to elsewhere, and the sums within that are one with it.

    Those are the inner ones of ``x + f(x) + g(x)``.
    """
    sends, sums, inner = list(stretch.sends), {stretch.begin}, set(stretch.inner)
    while all(e.to != stretch.end for e in sends):
        users = {e.to for index in inner - sums for e in flow.sends[index]}
        more = {e.to for e in sends if flow.operations[e.to].kind == "add" and e.to not in users}
        if not more:
            break
        sums |= more
        sends = [e for e in sends if e.to not in more] + [e for index in more for e in flow.sends[index]]
    direct = [e for e in sends if e.to == stretch.end]
    return direct, [e for e in sends if e.to != stretch.end], sums


def _separate(flow: Flow, nodes: Iterable[int], end: int) -> list[set[int]]:
    """``nodes`` in groups between which nothing is sent, those nearest to the output first."""
    group: dict[int, set[int]] = {}
    for index in sorted(nodes):
        joined = {index}
        for e in flow.sends[index]:
            if e.to != end and index not in group.get(e.to, ()):
                small, joined = sorted((joined, group[e.to]), key=len)
                joined |= small
                group.update(dict.fromkeys(small, joined))
        group[index] = joined
    return sorted({id(found): found for found in group.values()}.values(), key=max, reverse=True)


def _projection(flow: Flow, ways: Sequence[_Way]) -> _Way | None:
    """The way that takes the place of a skip where the shape changes: it has no activation, a weight at most."""
    first, *others = sorted((*plainness(flow, way.nodes), place) for place, way in enumerate(ways))
    bends, weights, place = first
    is_plainer = bool(others) and (bends, weights) < others[0][:2]
    return ways[place] if is_plainer and not bends and weights <= 1 else None


def _comes_out(flow: Flow, way: _Way, end: int) -> float:
    """The norm of what the way sends to the end: exact of one edge, else as if edges were unrelated."""
    return math.hypot(*(e.norm for index in way.nodes for e in flow.sends[index] if e.to == end))
