"""One training step under the microscope: how each operation passes the gradient on."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from gradwatch.finiteness import first_nonfinite
from gradwatch.flow import flow
from gradwatch.graph import Stranger
from gradwatch.graph_nodes import UNSEEN
from gradwatch.profile import BackwardProfile, Derivative, Operation
from gradwatch.readings import on_host
from gradwatch.recording import OUTSIDE, Call, Recording
from gradwatch.recurrence import time_steps
from gradwatch.spine import spine
from gradwatch.stacked import stacked_weights
from gradwatch.torch_internals import can_number
from gradwatch.towers import towers

COMPILED = "the model is compiled: what it is made of could not be seen"
NO_GRADIENT = "no gradient came while it was watched"


@contextlib.contextmanager
def probe(model: nn.Module, *, nonfinite: bool = False) -> Iterator[BackwardProfile]:
    """Watch one forward and backward pass of ``model``; the profile is there when the block ends.

    Nothing of training changes, to the last bit, and nothing stays behind. What the loss does outside of ``model`` is
    not seen: the top is the model's output.

    Args:
        model: the module to look into.
        nonfinite: also look for where NaN or inf came from, which costs a look at every module's inputs and outputs.

    Raises:
        TypeError: when ``model`` is not a module.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 1))
        >>> with probe(model) as profile:
        ...     model(torch.ones(4, 8)).sum().backward()
        >>> profile.factor("activation") < 1 / 16
        True
    """
    profile, microscope = BackwardProfile(), Probe(model, nonfinite=nonfinite)
    microscope.arm()
    try:
        yield profile
        vars(profile).update(vars(microscope.take() or BackwardProfile(notes=(NO_GRADIENT,))))
    finally:
        microscope.close()


class Probe:
    """Looks at one step: :meth:`arm` before its forward pass, :meth:`take` after its backward pass.

    Watched is the first call of the model, or where parts of it are called by themselves, as in a LightningModule's
    ``training_step``, those calls, until the first gradient comes. The hooks are on the modules for the forward pass
    and on the nodes of the autograd graph for the backward pass: no backward hooks of modules, which break operations
    in place. They keep numbers, so all is freed when it would be without them.

    Args:
        model: the module to look into; it is held by a weak reference.
        nonfinite: also look for where NaN or inf came from.

    Raises:
        TypeError: when ``model`` is not a module.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
        >>> probe = Probe(model)
        >>> probe.arm()
        >>> model(torch.ones(2, 1)).sum().backward()
        >>> profile = probe.take()
        >>> [(operation.module, operation.name) for operation in probe.operations]
        [('0', 'Addmm'), ('1', 'Tanh'), ('2', 'Addmm')]
    """

    def __init__(self, model: nn.Module, *, nonfinite: bool = False) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.operations: tuple[Operation, ...] = ()
        """Of the step that was taken last, all that it did, in the order of the forward pass."""
        self.strangers: tuple[Stranger, ...] | None = None
        """The parameters that it used and that are none of the model's; None where that could not be seen."""
        self._model = weakref.ref(model)
        self._nonfinite = nonfinite
        self._recording: Recording | None = None

    def arm(self) -> None:
        """Put hooks in place for the coming step; what the last one showed is dropped where nobody took it."""
        self.close()
        model = self._model()
        if model is not None and can_number():
            self._recording = Recording(model, self._nonfinite)

    def take(self) -> BackwardProfile | None:
        """What was seen since :meth:`arm`, from the device it is on; the hooks are removed.

        None where no gradient came, and there is nothing to say of it: nothing was armed, or the model was not called,
        or nobody went back through it.
        """
        recording, self._recording = self._recording, None
        if recording is None:
            return None
        recording.stop()
        self.operations = operations(recording)
        self.strangers = recording.strangers if self.operations else None
        nonfinite = first_nonfinite(recording.forward, self.operations) if recording.forward is not None else None
        notes = (*recording.notes, *_notes(self.operations, recording.compiled))
        if not any(operation.calls for operation in self.operations):
            return BackwardProfile(nonfinite=nonfinite, notes=notes) if nonfinite or notes else None
        weights = {operation.weight.name: operation.weight for operation in self.operations if operation.weight}
        ways = flow(self.operations)
        return BackwardProfile(
            spine(ways),
            time_steps(ways),
            nonfinite,
            notes=notes,
            weights=tuple(weights.values()),
            half=recording.half,
            stacked=stacked_weights(self.operations),
            towers=towers(self.operations),
        )

    def close(self) -> None:
        """Remove the hooks and forget what they saw."""
        if self._recording is not None:
            self._recording.stop()
            self._recording = None

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


def operations(recording: Recording) -> tuple[Operation, ...]:
    """The data path of what was recorded; waits for the device that it is on."""
    graph, heard = recording.graph, recording.heard
    readings = [r for node, h in zip(graph.nodes, heard) for r in (node.weight_norm, h.arrived, *h.sent, *h.slopes)]
    numbers = iter(on_host(readings))
    places = {place: i for i, place in enumerate(p for p, node in enumerate(graph.nodes) if node.data)}
    found: list[Operation] = []
    for place, (node, h) in enumerate(zip(graph.nodes, heard)):
        weight_norm, arrived = next(numbers), next(numbers)
        sent = tuple(next(numbers) for _ in h.sent) or (math.nan,) * len(node.inputs)
        derivative = _derivative([next(numbers) for _ in h.slopes])
        if not node.data:
            continue
        elements, calls = h.elements, h.times
        if not calls and graph.is_quiet(place):
            below = found[places[next(iter(graph.data_inputs(place).values()))]]
            arrived, elements, calls = below.grad_norm, below.elements, below.calls
        call = recording.calls[h.call] if h.call != OUTSIDE else Call()
        found.append(
            Operation(
                len(found),
                node.name,
                node.kind,
                call.layer,
                call.number,
                tuple((places[i[0]], i[1]) if i and i[0] in places else None for i in node.inputs),
                arrived,
                sent,
                elements,
                derivative if math.isfinite(arrived) else None,
                replace(node.weight, norm=weight_norm) if node.weight else None,
                calls=calls,
                module_kind=call.kind,
                outlet=node.outlet,
                constants=node.inputs.count(None),
            )
        )
    return tuple(found)


def _derivative(slopes: Sequence[float]) -> Derivative | None:
    if not slopes or not slopes[0]:
        return None
    known, norm, nonzero, passing = slopes
    return Derivative(norm**2 / known, 1 - nonzero / known, 1 - passing / known, int(known))


def _notes(operations: Sequence[Operation], compiled: bool) -> Iterator[str]:
    """What is not as it seems, in sentences."""
    if compiled and not operations:
        yield COMPILED
    for name, reason in UNSEEN.items():
        layers = dict.fromkeys(o.module for o in operations if o.name == name and o.calls)
        if layers:
            yield f"{', '.join(filter(None, layers)) or name}: {reason}, so what it is made of could not be seen"
    most = max((operation.calls for operation in operations), default=0)
    if most > 1:
        yield f"gradients went {most} times through the same operations: what is shown is the first time"
