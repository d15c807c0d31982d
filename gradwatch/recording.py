"""What the hooks of one watched step write down."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradwatch.finiteness import ForwardPass
from gradwatch.graph import AutogradNode, Graph, Stranger, tensors_in
from gradwatch.graph_nodes import LARGEST_SLOPE
from gradwatch.layers import places
from gradwatch.readings import Reading, norm, slopes
from gradwatch.safe_hook import SafeHook
from gradwatch.torch_internals import compiles_backward, in_transform, next_number, number_of

TRANSFORMED = "torch.func takes the gradients: they could not be seen"

FAILED = "a look at the gradient failed"
"""How the note begins that tells of it."""

LONGEST = 200
"""Characters of what is told of the error: some of torch's hold a whole tensor."""

NESTED = "nested tensors: their gradients are not looked at"

OUTSIDE = -1
"""In place of a call: no module's."""


class Call(NamedTuple):
    """One call of a module: of which layer, of what class, and how many there were before."""

    layer: str = ""
    kind: str = ""
    number: int = 0


@dataclass(slots=True)
class Heard:
    """What came by at one node of the autograd graph.

    Args:
        call: place of the call that made it, OUTSIDE of all.
        arrived: norm of the gradient with respect to its output.
        sent: norm of what it sends to each input, NaN where nobody asked; empty where it never sent.
        slopes: of an element-wise activation, see :func:`~gradwatch.readings.slopes`.
        elements: that arrived.
        times: that a gradient arrived.
    """

    call: int
    arrived: Reading = math.nan
    sent: list[Reading] = field(default_factory=list)
    slopes: list[Reading] = field(default_factory=list)
    elements: int = 0
    times: int = 0


class Recording:
    """The forward and the backward pass of one step.

    Args:
        model: its modules get forward hooks at once; :meth:`stop` removes them.
        nonfinite: whether to look at all that modules are given and make, and at all that is sent.
    """

    def __init__(self, model: nn.Module, nonfinite: bool = False) -> None:
        self.handles: list[torch.utils.hooks.RemovableHandle] = []
        self.notes: dict[str, None] = {}
        self.compiled = False
        self.half = False
        self.calls: list[Call] = []
        self.heard: list[Heard] = []
        """Of each node of the graph."""
        self._complete = False
        self._thread = 0
        self._since = OUTSIDE
        self._open: list[tuple[int, int]] = []
        """(place of the module, place of the call) of the calls that are running."""
        self._marks: list[int] = []
        """The number of the next operation whenever a call began or ended, and"""
        self._owners: list[int] = []
        """the call that was running from there on."""
        self._called: Counter[int] = Counter()
        compiled: set[int] = set()
        parameters: dict[int, str] = {}
        for i, place in enumerate(places(model)):
            for key, p in place.module._parameters.items():
                parameters.setdefault(id(p), f"{place.path}.{key}" if place.path else key)
            inside = _compiled_part(place.module)
            compiled.update(map(id, inside.modules() if inside is not None else ()))
            if id(place.module) not in compiled:
                enter = self._safe(self._enter, i, place.layer, place.kind)
                leave = self._safe(self._leave, i, ".parametrizations" not in f".{place.path}")
                self.handles.append(place.module.register_forward_pre_hook(enter, with_kwargs=True))
                self.handles.append(place.module.register_forward_hook(leave, with_kwargs=True, always_call=True))
        self.compiled = bool(compiled)
        self.graph = Graph(parameters)
        self.forward = ForwardPass(parameters) if nonfinite else None

    @property
    def strangers(self) -> tuple[Stranger, ...]:
        """The parameters that modules used and that are none of the model's; not what lies between two calls."""
        inside = [node for node, heard in zip(self.graph.nodes, self.heard) if heard.call != OUTSIDE]
        used = {given[0] for node in inside for given in node.inputs if given is not None}
        return tuple(stranger for place, stranger in self.graph.strangers.items() if place in used)

    def stop(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def _enter(self, place: int, layer: str, kind: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        """As a forward pre-hook: a call begins."""
        if self._complete:
            return
        if not self._open:
            if not torch.is_grad_enabled() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
                return
            if in_transform():
                self.notes[TRANSFORMED] = None
                return
            self._thread = get_ident()
            self._since = next_number() if self._since == OUTSIDE else self._since
        if get_ident() == self._thread:
            call = Call(layer, kind, self._called[place])
            self._open.append((place, len(self.calls)))
            self.calls.append(call)
            self._called[place] += 1
            self._mark()
            if self.forward is not None:
                self.forward.enter(module, layer, call.number, (args, kwargs))

    def _leave(
        self, place: int, gives_data: bool, module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any
    ) -> None:
        """As a forward hook, also of a call that raised: it ends. The outermost tells where the graph begins."""
        if not self._open or self._open[-1][0] != place or get_ident() != self._thread:
            return
        self._open.pop()
        outputs = [t for t in tensors_in(output) if t.grad_fn is not None]
        self.half |= any(t.dtype is torch.float16 for t in outputs)
        # What is made of parameters alone is a weight still, as a module that rounds one does.
        if gives_data and not (args and all(id(argument) in self.graph.parameters for argument in args)):
            self.graph.outputs.update(number_of(t.grad_fn) for t in outputs)
        self._mark()
        if not self._open and outputs:
            if compiles_backward():
                self.compiled = True
            else:
                self._listen_to(self.graph.add(outputs, self._since))
            self._complete |= place == 0
        if self.forward is not None:
            self.forward.leave(output)

    def _mark(self) -> None:
        self._marks.append(next_number())
        self._owners.append(self._open[-1][1] if self._open else OUTSIDE)

    def _listen_to(self, new: Sequence[tuple[AutogradNode, int]]) -> None:
        """Put hooks on nodes, as few as will do."""
        nodes = self.graph.nodes
        for node, place in new:
            known, heard = nodes[place], Heard(self._owners[bisect_right(self._marks, nodes[place].number) - 1])
            self.heard.append(heard)
            if not known.data or (self.graph.is_quiet(place) and self.forward is None):
                continue
            inputs = self.graph.data_inputs(place)
            shared = [slot for slot, before in inputs.items() if nodes[before].consumers > 1]
            edges = shared if self.forward is None else range(len(known.inputs))
            largest = LARGEST_SLOPE.get(known.name)
            if edges or largest is not None:
                self.handles.append(node.register_hook(self._safe(self._pass, heard, edges, largest)))
            else:
                self.handles.append(node.register_prehook(self._safe(self._arrive, heard)))

    def _safe(self, hook: Callable[..., None], *given: Any) -> SafeHook:
        return SafeHook(partial(hook, *given), self._note)

    def _note(self, error: Exception) -> None:
        self.notes[f"{FAILED}: {type(error).__name__}: {str(error)[:LONGEST]}"] = None

    def _arrive(self, heard: Heard, arrived: Sequence[Tensor | None]) -> None:
        """As a pre-hook of a node: all of its gradient is there."""
        self._complete = True
        heard.times += 1
        if heard.times == 1:
            there = [gradient for gradient in arrived if gradient is not None]
            if any(gradient.is_nested for gradient in there):
                self.notes[NESTED] = None
                return
            heard.elements = sum(gradient.numel() for gradient in there)
            heard.arrived = norm(*there) if there else 0.0

    def _pass(
        self,
        heard: Heard,
        edges: Sequence[int],
        largest: float | None,
        sent: Sequence[Tensor | None],
        arrived: Sequence[Tensor | None],
    ) -> None:
        """As a hook of a node: it has made the gradients of its inputs."""
        self._arrive(heard, arrived)
        if heard.times > 1 or NESTED in self.notes:
            return
        if edges:
            heard.sent = [math.nan] * len(sent)
        for edge in edges:
            gradient = sent[edge]
            heard.sent[edge] = 0.0 if gradient is None else norm(gradient)
        before, after = sent[0], arrived[0]
        if largest is not None and before is not None and after is not None and before.shape == after.shape:
            heard.slopes = slopes(before, after, largest)


def _compiled_part(module: nn.Module) -> nn.Module | None:
    """The module that a compiler has taken over, where hooks are not called."""
    if isinstance(module, torch.jit.ScriptModule) or module._compiled_call_impl is not None:
        return module
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else None
