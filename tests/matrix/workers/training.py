"""What is trained in the distributed cases: small models on whole batches, of which each rank takes its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ROWS, TOKENS, INPUTS, WIDTH, OUTPUTS, WORDS = 8, 4, 6, 8, 3, 11
LEARNING_RATE, MOMENTUM = 0.1, 0.9


class Gain(nn.Module):
    """One element: all but one rank hold an empty shard of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Net(nn.Module):
    """Layers that shard evenly, unevenly (a head of 3 outputs) and not at all (a gain of one element)."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(INPUTS, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head, self.gain = nn.Linear(WIDTH, OUTPUTS), Gain()

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        x = self.inp(x)
        for block in self.blocks:
            x = block(x)
        return self.gain(self.head(x))


class Branches(nn.Module):
    """A layer that only the rows of odd number reach, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.head = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, OUTPUTS)
        self.odd, self.never = nn.Linear(WIDTH, OUTPUTS), nn.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        x = torch.tanh(self.inp(x))
        out, odd = self.head(x), row % 2 == 1
        return out + odd.view(-1, 1, 1) * self.odd(x) if odd.any() else out


class Tied(nn.Module):
    """A head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.block, self.head = Block(), nn.Linear(WORDS, OUTPUTS)
        self.out.weight = self.words.weight

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        words = (x[..., 0].abs() * 10).long() % WORDS
        return self.head(self.out(self.block(self.words(words))))


def frozen_net() -> Net:
    """A whole block, and one bias of another, that do not train."""
    net = Net()
    net.blocks[0].requires_grad_(False)
    net.blocks[1].up.bias.requires_grad_(False)
    return net


@dataclass(frozen=True)
class Training:
    """A training run of a few steps.

    Args:
        build: makes the model, the same at every call after the same seed.
        steps: number of optimizer steps.
        micro_batches: parts of a batch, whose gradients are added up.
        max_norm: what the total norm is clipped to.
        scale: multiplies the targets, and so about the gradients.
    """

    build: Callable[[], nn.Module] = Net
    steps: int = 3
    micro_batches: int = 1
    max_norm: float = 0.3
    scale: float = 1.0

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def losses(self, step: int, part: int = 0, parts: int = 1) -> list[Callable[[nn.Module], Tensor]]:
        """The losses of one step's micro-batches, of the rows that one of ``parts`` takes."""
        return [
            lambda model, micro=micro: self._loss(model, step, micro * parts + part, parts * self.micro_batches)
            for micro in range(self.micro_batches)
        ]

    def _loss(self, model: nn.Module, step: int, first: int, stride: int) -> Tensor:
        dtype = next(model.parameters()).dtype
        rows = torch.arange(ROWS)[first::stride]
        x, y = self.batch(step)
        out = model(x[rows].to(dtype), rows)
        return (out - y[rows].to(dtype)).square().mean() / self.micro_batches

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, which a float32 holds exactly."""
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(ROWS, TOKENS, INPUTS, generator=generator)
        return x.double(), (self.scale * x[..., :OUTPUTS]).double()


TRAININGS = {
    "net": Training(),
    "net in micro-batches": Training(micro_batches=2),
    "branches": Training(Branches),
    "tied": Training(Tied),
    "frozen": Training(frozen_net),
}
