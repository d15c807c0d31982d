"""The gradient that reaches each time step of a recurrent module, in float64: what its weights' gradients hide."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch.records import FloatArray

KINDS = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
"""Modules that are looked at: whole sequences at once, or one time step per call."""


class ThroughTime:
    """Measures ``|dL/dh_t|`` at each time step t of one training step, all calls of a module one after the other.

    h is the hidden state, without the cell state of an LSTM. A module for whole sequences keeps its states to itself:
    what the loss wants of its outputs is taken by hooks in the backward pass, and carried back from step to step in a
    copy of the module, in float64. Training is left alone. Dropout between layers is left out, and so are modules that
    run both ways.
    """

    def __init__(self, model: nn.Module) -> None:
        found = [(name, module) for name, module in model.named_modules() if _is_followed(module)]
        self.names = tuple(name for name, _ in found)
        self._followed = [_Cell() if isinstance(m, nn.RNNCellBase) else _Layer(m) for _, m in found]
        self._handles = [
            m.register_forward_hook(followed.called, with_kwargs=True)
            for (_, m), followed in zip(found, self._followed)
        ]

    def listen(self, now: bool) -> None:
        """Whether the coming step is measured."""
        for followed in self._followed:
            followed.listen(now)

    def take(self) -> list[FloatArray]:
        """For each module, the norm at each time step; after the backward pass."""
        return [followed.norms() for followed in self._followed]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _is_followed(module: nn.Module) -> bool:
    return isinstance(module, KINDS) and not getattr(module, "bidirectional", False)


class _Wanted:
    """What the loss wants of some tensors, by hooks on them; 0 where it wants nothing."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.gradients = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in tensors]
        for i, tensor in enumerate(tensors):
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient, i=i: self._take(i, gradient))

    def _take(self, i: int, gradient: Tensor) -> None:
        self.gradients[i] = gradient.detach().double()


class _Cell:
    """A module that is called once per time step: its outputs are the states."""

    def listen(self, now: bool) -> None:
        self._listening = now
        self._calls: list[_Wanted] = []

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._listening and torch.is_grad_enabled():
            self._calls.append(_Wanted(as_tuple(output)[:1]))

    def norms(self) -> FloatArray:
        return np.array([norm(call.gradients[0]) for call in self._calls])


class _Layer:
    """A module that is called with a sequence; its states in between are computed anew."""

    def __init__(self, module: nn.Module) -> None:
        self._copy = copy.deepcopy(module).double().eval()

    def listen(self, now: bool) -> None:
        self._listening = now
        self._calls: list[tuple[Tensor, tuple[Tensor, ...] | None, _Wanted]] = []

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self._listening or not torch.is_grad_enabled():
            return
        if not self._calls:
            self._copy.load_state_dict(module.state_dict())  # now, before the optimizer changes them
        given = kwargs.get("hx", args[1] if len(args) > 1 else None)
        start = None if given is None else tuple(part.detach().double() for part in as_tuple(given))
        self._calls.append((args[0].detach().double(), start, _Wanted((output[0], *as_tuple(output[1])))))

    def norms(self) -> FloatArray:
        return np.array([norm(hidden) for call in self._calls for hidden in self._gradients_of(*call)])

    @torch.enable_grad()
    def _gradients_of(self, sequence: Tensor, start: tuple[Tensor, ...] | None, wanted: _Wanted) -> tuple[Tensor, ...]:
        outputs, states = unroll(self._copy, sequence, start)
        return torch.autograd.grad((outputs, *states[-1]), [state[0] for state in states], wanted.gradients)


def norm(tensor: Tensor) -> float:
    return math.sqrt(float(tensor.square().sum()))


def unroll(
    module: nn.Module, sequence: Tensor, start: tuple[Tensor, ...] | None
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The outputs of ``module`` and its state after each time step, which the outputs depend on."""
    time = 1 if module.batch_first and sequence.ndim == 3 else 0
    states: list[tuple[Tensor, ...]] = []
    state = start
    for given in sequence.split(1, dim=time):
        _, new = module(given) if state is None else module(given, state if len(state) > 1 else state[0])
        state = as_tuple(new)
        states.append(state)
    # The output is the top layer's part of the state; taken from there, the state's gradient is whole.
    return torch.stack([state[0][-1] for state in states], dim=time), states


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    """The parts of a state: an LSTM has two."""
    return tuple(value) if isinstance(value, tuple) else (value,)
