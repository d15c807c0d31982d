"""Where NaN or inf came from, in one forward and backward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gradwatch.graph import tensors_in
from gradwatch.profile import FirstNonFinite, Operation
from gradwatch.readings import Reading, norm, on_host


@dataclass(slots=True)
class Look:
    """Norms, which are finite where all elements are, of what was given and of what was made of it.

    Args:
        where: "parameter", "input" or "forward", as of FirstNonFinite.
        module: the same.
        call: which call of that module, counted from 0.
        given: 0 where there is nothing.
        made: the same.
        outermost: whether the caller of the model has it.
    """

    where: str
    module: str
    call: int = 0
    given: Reading = 0.0
    made: Reading = 0.0
    outermost: bool = False


@dataclass
class ForwardPass:
    """What modules were given and made, in the order in which their calls ended.

    A call is at fault for what it makes of finite inputs, and where one is within another the inner ends first.

    Args:
        parameters: full names of the model's parameters by their id.

    Example:
        >>> from torch import tensor
        >>> forward, model, x = ForwardPass({}), nn.Linear(2, 2), tensor([math.inf, 1.0])
        >>> forward.enter(model, "fc", 0, (x,))
        >>> forward.leave(model(x))
        >>> forward.first(harmful=False).where
        'input'
    """

    parameters: Mapping[int, str]
    _looks: list[Look] = field(default_factory=list)
    _open: list[Look] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def enter(self, module: nn.Module, layer: str, call: int, inputs: Any) -> None:
        """A call begins; the outermost one's parameters come with it."""
        outermost = not self._open
        look = Look("forward", layer, call, _size(inputs), outermost=outermost)
        if outermost:
            for p in module.parameters():
                if id(p) in self.parameters and id(p) not in self._seen:
                    self._seen.add(id(p))
                    self._looks.append(Look("parameter", self.parameters[id(p)], made=_size(p)))
            self._looks.append(Look("input", layer, call, made=look.given))
        self._open.append(look)

    def leave(self, output: Any) -> None:
        """The call that began last ends."""
        look = self._open.pop()
        look.made = _size(output)
        self._looks.append(look)

    def first(self, harmful: bool) -> Look | None:
        """What was not finite first, though what it was given is; waits for the device.

        Args:
            harmful: whether gradients show it; else it counts if it came out of the model, and not where it is masked.
        """
        readings = on_host([reading for look in self._looks for reading in (look.given, look.made)])
        given, made = ([math.isfinite(size) for size in sizes] for sizes in (readings[::2], readings[1::2]))
        if not harmful and all(fine for look, fine in zip(self._looks, made) if look.outermost):
            return None
        return next((look for look, before, after in zip(self._looks, given, made) if before and not after), None)


def first_nonfinite(forward: ForwardPass, operations: Sequence[Operation]) -> FirstNonFinite | None:
    """Where NaN or inf came from: the forward pass if it was there, else the backward pass.

    Args:
        forward: what was looked at.
        operations: with all that they sent, in the order of the forward pass.
    """
    faulty = [o for o in operations if o.calls and not all(map(math.isfinite, (o.grad_norm, *o.sent)))]
    look = forward.first(harmful=bool(faulty))
    if look is not None:
        of_call = (o for o in operations if (o.module, o.call) == (look.module, look.call) and look.where == "forward")
        names = [o.name for o in of_call if o.kind != "shape"]
        return FirstNonFinite(look.where, look.module, names[0] if len(names) == 1 else "")
    if not faulty:
        return None
    source = next((o for o in reversed(faulty) if math.isfinite(o.grad_norm)), None)
    return FirstNonFinite("backward", source.module, source.name) if source else FirstNonFinite("backward", "")


def _size(thing: Any) -> Reading:
    """Norm of all its tensors; of those without gradients, where it is a mask, -inf counts as 0."""
    numbers = [t for t in tensors_in(thing) if t.is_floating_point() or t.is_complex()]
    return norm(*(t if t.requires_grad else t.masked_fill(t == -math.inf, 0) for t in numbers)) if numbers else 0.0
