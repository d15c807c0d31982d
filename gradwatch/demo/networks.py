"""The networks of the stories: small, and with names that can be read in a report."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

PIXELS, CLASSES, ROWS = 64, 10, 8


def mlp(depth: int, activation: Callable[[], nn.Module], width: int = 64) -> nn.Sequential:
    """``depth`` hidden layers fc1, fc2, ... and the layer out, initialised as PyTorch does.

    Example:
        >>> [name for name, _ in mlp(2, nn.ReLU).named_children()]
        ['fc1', 'act1', 'fc2', 'act2', 'out']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, depth + 1):
        layers[f"fc{i}"] = nn.Linear(PIXELS if i == 1 else width, width)
        layers[f"act{i}"] = activation()
    layers["out"] = nn.Linear(width, CLASSES)
    return nn.Sequential(layers)


def he_initialised(model: nn.Module, scale: float = 1.0) -> nn.Module:
    """``model`` with He's initialisation for ReLU in every linear layer, times ``scale``.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight.mul_(scale)
    return model


class Remember(nn.Module):
    """Sees the image once, as the initial state; then a recurrent cell runs on noise before the state is classified."""

    def __init__(self, cell: type[nn.RNNCell | nn.GRUCell], time_steps: int, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Linear(PIXELS, width)
        self.cell = cell(8, width)
        self.out = nn.Linear(width, CLASSES)
        self.time_steps = time_steps

    def states(self, images: Tensor) -> list[Tensor]:
        """The hidden states, from the one that holds the image to the one that is classified."""
        found = [torch.tanh(self.encoder(images))]
        for _ in range(self.time_steps):
            found.append(self.cell(0.1 * torch.randn(len(images), 8), found[-1]))
        return found

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.out(self.states(images)[-1])
        return logits


def remembering_gru(time_steps: int, bias: float = 3.0) -> Remember:
    """A GRU whose update gate is open at the start: each step keeps ``sigmoid(bias)`` of the state."""
    model = Remember(nn.GRUCell, time_steps)
    width = model.cell.hidden_size
    with torch.no_grad():
        model.cell.bias_hh[width : 2 * width] = bias  # PyTorch orders the gates: reset, update, new
    return model


def normalised_mlp() -> nn.Sequential:
    """Three hidden layers, each with a LayerNorm."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, 4):
        layers[f"fc{i}"], layers[f"norm{i}"], layers[f"act{i}"] = nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU()
    layers["out"] = nn.Linear(64, CLASSES)
    return nn.Sequential(layers)


class RowTransformer(nn.Module):
    """A pre-norm transformer of two blocks that reads the image row by row, as eight tokens."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(ROWS, width)
        self.position = nn.Parameter(0.02 * torch.randn(ROWS, width))
        blocks = [nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=True) for _ in range(2)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images.view(-1, ROWS, ROWS)) + self.position
        logits: Tensor = self.out(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits
