"""A perceptron with PyTorch's own initialisation, for everything that is about how it is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import Data
from benchmarks.detection.recipes.initialisation import initialise
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.recipes.mlp import tabular
from benchmarks.detection.recipes.stack import perceptron
from benchmarks.detection.task import Task


def plain(
    seed: int,
    *,
    data: str = "digits",
    raw: bool = False,
    input_scale: float = 1.0,
    depth: int = 2,
    width: int = 64,
    activation: str = "relu",
    norm: str | None = None,
    init: str | None = None,
    bias: float | None = None,
    dropout: float = 0.0,
    dtype: str = "float32",
    bad_step: int | None = None,
    loss: str = "",
    loss_weight: float = 1.0,
    **loop: Any,
) -> Task:
    """``depth`` hidden layers and one of outputs.

    Args:
        seed: of weights, batches and dropout.
        data: of scikit-learn, or ``"blobs"``, or ``"circles"``.
        raw: leave the data in the units in which they were measured.
        input_scale: factor of every input.
        depth: hidden layers.
        width: of each.
        activation: after each hidden layer.
        norm: before each activation.
        init: scheme of the weights, PyTorch's when None.
        bias: of the hidden layers at the start, PyTorch's when None.
        dropout: after each hidden layer.
        dtype: of weights and inputs.
        bad_step: the inputs of this step's batch are 30 times as large as they should be.
        loss: a name in ``LOSSES``.
        loss_weight: a factor of the loss.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    examples = tabular(data, raw).scaled(input_scale)
    examples = Data(examples.x.to(getattr(torch, dtype)), examples.y, examples.outputs)
    model = perceptron(examples.x.shape[1], depth, width, examples.outputs, activation, norm)
    for block in model.hidden:
        if init is not None:
            initialise(block.layer.weight, init)
        if bias is not None:
            nn.init.constant_(block.layer.bias, bias)
        if dropout:
            block.activation = nn.Sequential(block.activation, nn.Dropout(dropout))
    model.to(examples.x.dtype)
    task = supervised(model, examples, seed, **loop, loss=loss, loss_weight=loss_weight)
    if bad_step is not None:
        _disturb(task, model, bad_step)
    return task


def _disturb(task: Task, model: nn.Module, bad_step: int) -> None:
    good, scale = task.loss, [1.0]
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * scale[0],))

    def loss(step: int) -> Tensor:
        scale[0] = 30.0 if step == bad_step else 1.0
        value = good(step)
        scale[0] = 1.0
        return value

    task.loss = loss
