"""A recurrent network that reads a sequence and answers at its end."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import (
    Data,
    adding,
    autoregressive,
    copy_first,
    first_and_last,
    packaged,
    parity,
    sines,
    tail,
    walk,
)
from benchmarks.detection.recipes.initialisation import initialise
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.task import Task

TASKS = {
    "copy_first": copy_first,
    "first_and_last": first_and_last,
    "parity": parity,
    "adding": adding,
    "autoregressive": autoregressive,
    "sines": sines,
    "walk": walk,
    "tail": tail,
}
CELLS: dict[str, type[nn.RNNBase]] = {"tanh": nn.RNN, "relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def rnn(
    seed: int,
    *,
    data: str = "copy_first",
    length: int = 40,
    input_scale: float = 1.0,
    cell: str = "tanh",
    width: int = 32,
    init: str | None = "orthogonal",
    radius: float = 1.0,
    memory: float = 2.0,
    stepwise: bool = False,
    optimizer: str = "sgd",
    lr: float = 0.1,
    **loop: Any,
) -> Task:
    """One recurrent layer, and a linear layer on its last state.

    Args:
        seed: of weights and batches.
        data: one of ``TASKS``, or ``"digits"``: a row of 8 pixels at each of 8 time steps.
        length: time steps.
        input_scale: factor of every input.
        cell: ``"tanh"`` or ``"relu"``, ``"gru"`` or ``"lstm"``.
        width: of the state.
        init: scheme of the recurrent weights; with None all is as PyTorch makes it.
        radius: factor of it; with ``"orthogonal"`` and ``"identity"`` the spectral radius.
        memory: bias of the gate that keeps the state, where the cell has one (Gers et al. 2000).
        stepwise: call the layer once for each time step.
        optimizer: see ``Loop``.
        lr: step size.
        loop: the rest, see ``Loop``.
    """
    torch.manual_seed(seed)
    examples = sequences(data, length).scaled(input_scale)
    model = Recurrent(cell, examples.x.shape[2], width, examples.outputs, stepwise)
    if init is not None:
        _initialise(model, cell, width, init, radius, memory)
    return supervised(model, examples, seed, optimizer=optimizer, lr=lr, **loop)


def _initialise(model: Recurrent, cell: str, width: int, init: str, radius: float, memory: float) -> None:
    for inputs, state in zip(model.core.weight_ih_l0.split(width), model.core.weight_hh_l0.split(width)):
        initialise(inputs, "lecun")
        initialise(state, init, radius)
    nn.init.zeros_(model.core.bias_hh_l0)
    nn.init.zeros_(model.core.bias_ih_l0)
    if cell in ("gru", "lstm"):  # the second gate of both is the one that keeps the state
        nn.init.constant_(model.core.bias_ih_l0[width : 2 * width], memory)
    initialise(model.head.weight, "lecun")
    nn.init.zeros_(model.head.bias)


def sequences(name: str, length: int) -> Data:
    """Inputs float32 [N, length, features]; tokens become one-hot vectors."""
    if name == "digits":
        digits = packaged("digits")
        return Data(digits.x.view(-1, 8, 8), digits.y, digits.outputs)
    found = TASKS[name](length)
    return Data(found.x if found.x.is_floating_point() else F.one_hot(found.x).float(), found.y, found.outputs)


class Recurrent(nn.Module):
    """``core`` over time and ``head`` on the last state."""

    def __init__(self, cell: str, inputs: int, width: int, outputs: int, stepwise: bool = False) -> None:
        super().__init__()
        kind = {"nonlinearity": cell} if CELLS[cell] is nn.RNN else {}
        self.core = CELLS[cell](inputs, width, batch_first=True, **kind)
        self.head = nn.Linear(width, outputs)
        self.stepwise = stepwise

    def forward(self, x: Tensor) -> Tensor:
        if not self.stepwise:
            states, _ = self.core(x)
            return self.head(states[:, -1])
        state = None
        for now in x.split(1, dim=1):
            output, state = self.core(now, state)
        return self.head(output[:, 0])
