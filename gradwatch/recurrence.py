"""Recurrent layers along time: how much of the gradient each step passes on to the one before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from gradwatch.flow import Flow
from gradwatch.profile import TimeSteps
from gradwatch.spine import squared_ratio

RECURRENT = frozenset({"GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"})
"""torch's own, whose steps see something new, also where that has no gradient."""


def time_steps(flow: Flow) -> tuple[TimeSteps, ...]:
    """The recurrent layers: each has a weight that multiplies, at every step, what came of it at the step before.

    And every step sees something new: else it is a layer that is used at several depths.
    """
    found = []
    for layer, states in _recurrent(flow):
        steps = [_step(flow, after, before) for after, before in pairwise(states)]
        found.append(_gains(flow, layer, states, steps, "hidden"))
        if cells := _cells(flow, states, steps):
            found.append(_gains(flow, layer, cells, steps, "cell"))
    return tuple(found)


def _recurrent(flow: Flow) -> Iterator[tuple[str, list[int]]]:
    """Of each recurrent layer the name, and the operations that made its hidden states, the last first."""
    uses: dict[str, list[int]] = {}
    for index in sorted(flow.sends, reverse=True):
        weight = flow.operations[index].weight
        if weight is not None:
            uses.setdefault(weight.name, []).append(index)
    known: set[int] = set()
    for places in uses.values():
        states = _states(flow, places)
        if states and not known.intersection(states):
            known.update(states)
            yield flow.operations[places[0]].module, states


def _states(flow: Flow, places: Sequence[int]) -> list[int]:
    """What the operations at ``places`` multiply, which is what came of those before; [] of what is not recurrent."""
    found = [_state(flow, place, earlier) for place, earlier in pairwise(places)]
    states = [state for state in found if state is not None]
    if not states or len(states) < len(found):
        return []
    # None of them multiplies the last state, which is as far behind the last of them as others are behind theirs.
    last = places[0] + states[0] - places[1]
    states = [last, *states] if _are_alike(flow, (last, states[0])) else states
    recurs = all(_sees_more(flow, _step(flow, after, before), before) for after, before in pairwise(states))
    return states if len(states) > 1 and _are_alike(flow, states) and recurs else []


def _state(flow: Flow, place: int, earlier: int) -> int | None:
    """What the operation at ``place`` multiplies, alone or joined with something, that came of the one ``earlier``."""
    queue = [e.to for e in flow.sends[place]]
    for index in queue:  # it grows
        if flow.operations[index].kind == "shape":
            queue += [e.to for e in flow.sends[index]]
        elif earlier in _step(flow, index, earlier - 1):
            return index
    return None


def _step(flow: Flow, after: int, before: int) -> list[int]:
    """The operations that made the state ``after`` since the state ``before`` was there."""
    found = [after]
    known = {after}
    for index in found:  # it grows
        new = {e.to for e in flow.sends[index] if e.to > before} - known
        known |= new
        found += new
    return found


def _sees_more(flow: Flow, step: Sequence[int], before: int) -> bool:
    """Whether a step goes on from the state before it, and has something else, too."""
    edges = [e for index in step for e in flow.sends[index]]
    operations = [flow.operations[index] for index in step]
    return any(e.to == before for e in edges) and (
        any(e.to < before for e in edges)
        or any(not flow.sends[index] for index in step)
        or any(o.module_kind in RECURRENT or (o.name == "Cat" and None in o.inputs) for o in operations)
    )


def _cells(flow: Flow, states: Sequence[int], steps: Sequence[Sequence[int]]) -> list[int]:
    """The operations that made the other state of each step, as an LSTM's; [] where there is none, or several."""
    if len(states) < 3:
        return []
    own = flow.operations[states[1]].module
    kept = {e.to for index in steps[0] for e in flow.sends[index] if states[2] < e.to < states[1]}
    found = [index for index in kept if flow.operations[index].module == own]
    cells = [state - states[1] + found[0] for state in states] if len(found) == 1 else []
    return cells if _are_alike(flow, cells) else []


def _gains(flow: Flow, layer: str, states: Sequence[int], steps: Sequence[Sequence[int]], path: str) -> TimeSteps:
    norms = [flow.norm(state) for state in states]
    passed = [_passed(flow, step, before) for step, before in zip(steps, states[1:])]
    gains = [squared_ratio(after, norm) for after, norm in zip(passed, norms)]
    return TimeSteps(layer, np.array(gains), np.array(norms), path)


def _passed(flow: Flow, step: Iterable[int], before: int) -> float:
    """The norm of what ``step`` sends to the state before it: exact of one edge, or where nothing else arrives."""
    own = set(step)
    inside = [e.norm for e in flow.arrives[before] if e.to in own]
    outside = [e.norm for e in flow.arrives[before] if e.to not in own]
    if len(inside) > 1 and not any(outside) and before not in flow.tops:
        return flow.norm(before)
    return math.hypot(*inside)


def _are_alike(flow: Flow, indices: Iterable[int]) -> bool:
    """Whether the same code made all of them."""
    made = [flow.operations[index] if index in flow.sends else None for index in indices]
    return len({o and (o.name, o.module) for o in made}) == 1 and None not in made
