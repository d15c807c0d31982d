"""The autograd graph behind a model's outputs, remembered by numbers: whoever holds a node holds the whole graph."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from gradwatch.graph_nodes import FACTORS, NORMALISED, PRESERVING, TRANSPOSING, base_name, kind_of
from gradwatch.profile import Weight
from gradwatch.readings import Reading, weight_norm
from gradwatch.torch_internals import number_of

AutogradNode: TypeAlias = Any
"""torch's ``Node``, of which its stubs know little."""

_NESTED = 6
"""Containers within containers, down to which an output is searched for tensors."""


@dataclass(slots=True)
class Node:
    """What is remembered of an autograd node before any gradient came.

    Args:
        name: as that of :class:`~gradwatch.profile.Operation`.
        kind: the same.
        number: of its operation, in the order of the forward pass; below 0 of a leaf.
        data: whether it depends on the model's input; else it is part of a weight.
        inputs: (place of the node that made the input, which of its outputs), None where no gradient goes.
        consumers: of its output: operations, and the caller of the model.
        outlet: whether the caller of the model is one.
        weight: the parameter that it multiplies with; its norm comes with ``weight_norm``.
        weight_norm: of that parameter.
    """

    name: str
    kind: str
    number: int
    data: bool
    inputs: tuple[tuple[int, int] | None, ...] = ()
    consumers: int = 0
    outlet: bool = False
    weight: Weight | None = None
    weight_norm: Reading = math.nan


class Stranger(NamedTuple):
    """A parameter that is none of the model's."""

    parameter: weakref.ref[Tensor]
    numel: int


@dataclass
class Graph:
    """The nodes between the outputs of a model and its inputs, each after those that it depends on.

    Args:
        parameters: full names of the model's parameters by their id.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 3)
        >>> graph = Graph({id(p): name for name, p in model.named_parameters()})
        >>> added = graph.add([model(torch.ones(1, 2))], since=0)
        >>> [(node.name, node.data) for node in graph.nodes if node.kind != "leaf"]
        [('T', False), ('Addmm', True)]
    """

    parameters: Mapping[int, str]
    nodes: list[Node] = field(default_factory=list)
    outputs: set[int] = field(default_factory=set)
    """Numbers of the operations whose results modules gave out: data, wherever it came from."""
    strangers: dict[int, Stranger] = field(default_factory=dict)
    """By their places, the parameters that are none of the model's."""
    _places: dict[int, int] = field(default_factory=dict)
    _norms: dict[str, Reading] = field(default_factory=dict)

    def add(self, outputs: Iterable[Tensor], since: int) -> list[tuple[AutogradNode, int]]:
        """Walk from ``outputs`` of the model back to what was there before.

        Args:
            outputs: of the model.
            since: the number of the model's first operation.

        Returns:
            The nodes that are new, and the place of each.
        """
        roots = [t.grad_fn for t in outputs if t.grad_fn is not None]
        added: list[tuple[AutogradNode, int]] = []
        for key, node in self._walk(roots, since):
            self._places[key] = place = len(self.nodes)
            self.nodes.append(self._remembered(node, key))
            added.append((node, place))
        for _, place in added:
            for before in self.data_inputs(place).values():
                self.nodes[before].consumers += 1
        for key in map(_key, roots):
            if key in self._places:
                self.nodes[self._places[key]].consumers += 1
                self.nodes[self._places[key]].outlet = True
        return added

    def data_inputs(self, place: int) -> dict[int, int]:
        """Which of its inputs are data, and the places of the nodes they come from; {} of a part of a weight."""
        node = self.nodes[place]
        found = {slot: given[0] for slot, given in enumerate(node.inputs) if given and self.nodes[given[0]].data}
        return found if node.data else {}

    def is_quiet(self, place: int) -> bool:
        """Whether what arrives there is what arrives at its input, so that nobody need look."""
        inputs = self.data_inputs(place)
        preserving = self.nodes[place].name in PRESERVING and len(inputs) == 1
        return preserving and all(self.nodes[before].consumers == 1 for before in inputs.values())

    def _walk(self, roots: Iterable[AutogradNode], since: int) -> list[tuple[int, AutogradNode]]:
        """The nodes that are not known and their keys, in the order of the forward pass, leaves first."""
        found: dict[int, AutogradNode] = {}
        queue = list(roots)
        for node in queue:  # it grows
            key = _key(node)
            if key not in found and key not in self._places and not 0 <= key < since:
                found[key] = node
                queue += [before for before, _ in node.next_functions if before is not None]
        return sorted(found.items(), key=itemgetter(0))

    def _remembered(self, node: AutogradNode, key: int) -> Node:
        if _is_leaf(node):
            known, parameter = id(node.variable) in self.parameters, isinstance(node.variable, nn.Parameter)
            if parameter and not known:
                self.strangers[len(self.nodes)] = Stranger(weakref.ref(node.variable), node.variable.numel())
            return Node("AccumulateGrad", "leaf", key, data=not (known or parameter))
        name = base_name(node.name())
        places = [before and self._places.get(_key(before)) for before, _ in node.next_functions]
        inputs = tuple(None if p is None else (p, output) for p, (_, output) in zip(places, node.next_functions))
        is_data = [p is not None and self.nodes[p].data for p in places]
        factors, kind = FACTORS.get(name), kind_of(name)
        first = factors[0] if factors else 0 if name in NORMALISED else None
        data = any(is_data) or kind in ("embedding", "parallel") or key in self.outputs
        # What needs no gradient is not in the graph, so that a first layer looks as if it computed a weight.
        data |= first is not None and places[first] is None
        remembered = Node(name, kind, key, data, inputs)
        if factors and all(is_data[slot] for slot in factors):
            remembered.kind = "multiply"
        elif factors:
            self._find_weight(remembered, node, [s for s in factors if places[s] is not None and not is_data[s]])
        return remembered

    def _find_weight(self, remembered: Node, node: AutogradNode, slots: Sequence[int]) -> None:
        """The parameter at the last of ``slots``, as it is or turned; nothing where a weight is computed of several."""
        leaf, turned = _leaf_behind(node.next_functions[slots[-1]][0]) if slots else (None, False)
        name = self.parameters.get(id(leaf))
        if leaf is None or name is None or leaf.ndim < 2:
            return
        if name not in self._norms:
            self._norms[name] = weight_norm(leaf.detach())
        remembered.weight_norm = self._norms[name]
        if hasattr(node, "_saved_stride"):
            remembered.weight = _kernel(name, leaf, node)
        else:
            is_second = slots[-1] == FACTORS[remembered.name][1]
            remembered.weight = _matrix(name, leaf, turned == is_second or remembered.name.endswith("Linear"))


def tensors_in(output: Any, nested: int = _NESTED, seen: set[int] | None = None) -> Iterator[Tensor]:
    """The tensors of a module's output: itself, or in containers, dataclasses and other objects.

    Args:
        output: what the module returns.
        nested: levels to go down.
        seen: ids of the containers that were gone through; what is there twice, or refers back, is gone through once.

    >>> import torch
    >>> [t.item() for t in tensors_in({"logits": torch.tensor(1.0), "hidden": (torch.tensor(2.0), None)})]
    [1.0, 2.0]
    """
    seen = set() if seen is None else seen
    if isinstance(output, Tensor):
        yield output
    elif nested and id(output) not in seen and not isinstance(output, (str, bytes, nn.Module, type)):
        seen.add(id(output))
        if isinstance(output, Mapping):
            inside: Iterable[Any] = output.values()
        elif isinstance(output, (list, tuple, set, frozenset)):
            inside = output
        elif is_dataclass(output):
            inside = (getattr(output, f.name) for f in fields(output))
        else:
            inside = getattr(output, "__dict__", {}).values()
        for thing in list(inside):
            yield from tensors_in(thing, nested - 1, seen)


def _is_leaf(node: AutogradNode) -> bool:
    return type(node).__name__ == "AccumulateGrad"


def _key(node: AutogradNode) -> int:
    """The number of its operation, and of a leaf, which has none, one below 0; as long as the graph lives."""
    return -1 - id(node.variable) if _is_leaf(node) else number_of(node)


def _leaf_behind(node: AutogradNode) -> tuple[Tensor | None, bool]:
    """The leaf whose elements ``node`` gives out, and whether rows are columns then; None of what changes them."""
    turned = False
    while not _is_leaf(node):
        name = base_name(node.name())
        if name not in PRESERVING or node.next_functions[0][0] is None:
            return None, turned
        turned ^= name in TRANSPOSING
        node = node.next_functions[0][0]
    return node.variable, turned


def _kernel(name: str, kernel: Tensor, node: AutogradNode) -> Weight:
    positions = math.prod(kernel.shape[2:])
    outputs = kernel.shape[0]
    if getattr(node, "_saved_transposed", False):
        outputs = kernel.shape[1] * node._saved_groups * math.prod(node._saved_stride)
    return Weight(name, math.nan, kernel.shape[1] * positions, kernel.shape[0] * positions, outputs)


def _matrix(name: str, matrix: Tensor, rows_are_outputs: bool) -> Weight:
    """Of a batch of matrices each output counts."""
    fan_out, fan_in = matrix.shape[-2:] if rows_are_outputs else matrix.shape[:-3:-1]
    return Weight(name, math.nan, fan_in, fan_out, matrix.numel() // max(fan_in, 1))
