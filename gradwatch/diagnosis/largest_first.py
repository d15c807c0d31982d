"""Largest first: which of the layers that a fault hits alike is named first."""

from __future__ import annotations

from collections.abc import Iterable

from gradwatch.profile import BackwardProfile, Weight


def largest_first(layers: Iterable[str], probe: BackwardProfile) -> tuple[str, ...]:
    """Of layers, input first, those with more weights before the others: more of the network stands still with them.

    An activation counts for the weights before it.

    >>> weights = Weight("stem.weight", 1.0, 9, 8, 8), Weight("body.weight", 1.0, 72, 8, 8)
    >>> largest_first(["stem", "body", "head"], BackwardProfile(weights=weights))
    ('body', 'stem', 'head')
    """
    sizes = {weight.name.rpartition(".")[0]: _elements(weight) for weight in probe.weights}
    before = probe.weights[0] if probe.weights else None  # no gradient goes on behind the first one
    for segment in reversed(probe.segments):
        before = segment.weight or before
        sizes.setdefault(segment.layer, _elements(before))
    return tuple(sorted(filter(None, layers), key=lambda name: -sizes.get(name, 0)))


def _elements(weight: Weight | None) -> int:
    return weight.fan_in * weight.outputs if weight is not None else 0
