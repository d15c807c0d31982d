"""Towers: networks beside each other in one model, as a policy and its value, between which no data flows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwatch.profile import Operation
from gradwatch.records import IntArray


def towers(operations: Sequence[Operation]) -> tuple[tuple[str, ...], ...]:
    """Names of the modules of each of several towers that have weights; () where there is only one.

    The order in which they are registered says nothing of how deep a layer of one lies beside one of another. What is
    called in two of them, as a trunk that they share, makes one of both; an input that they share does not.

    Args:
        operations: of a probed step, in the order of the forward pass.

    Example:
        >>> from gradwatch.profile import Weight
        >>> fc = [
        ...     Operation(i, "Addmm", "weight", name, 0, (), 1.0, weight=Weight(f"{name}.weight", 1.0, 4, 4, 4))
        ...     for i, name in enumerate(["policy", "value"])
        ... ]
        >>> towers(fc)
        (('policy',), ('value',))
        >>> towers([*fc, Operation(2, "Add", "add", "", 0, ((0, 0), (1, 0)), 1.0)])
        ()
    """
    tower = list(range(len(operations)))
    first: dict[str, int] = {}

    def found(index: int) -> int:
        while tower[index] != index:
            tower[index] = tower[tower[index]]
            index = tower[index]
        return index

    for o in operations:
        joined = [given[0] for given in o.inputs if given is not None and operations[given[0]].kind != "leaf"]
        if o.module:
            joined.append(first.setdefault(o.module, o.index))
        for index in joined:
            tower[found(index)] = found(o.index)
    with_weights = dict.fromkeys(found(o.index) for o in operations if o.weight is not None)
    groups = [tuple(name for name, index in first.items() if found(index) == top) for top in with_weights]
    return tuple(groups) if len(groups) > 1 else ()


def tower_of(layers: Sequence[str], found: Sequence[Sequence[str]]) -> IntArray:
    """int64 [L], the number of the tower that each of ``layers``, modules or parameters, is in; else that before it.

    >>> tower_of(["norm", "policy.weight", "policy.bias", "value.weight"], [("policy",), ("value",)]).tolist()
    [0, 0, 0, 1]
    """
    number = {name: i for i, names in enumerate(found) for name in names}
    numbers, last = [], 0
    for layer in layers:
        last = number.get(layer, number.get(layer.rpartition(".")[0], last))
        numbers.append(last)
    return np.array(numbers, np.int64)
