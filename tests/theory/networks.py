"""Random networks as theory draws them, and what gradwatch measures in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.profile import BackwardProfile
from tests.theory.oracle import ERF, RELU, SIGMOID, TANH, Activation, fixed_point

DEPTH, WIDTH, BATCH = 50, 500, 64

INSIDE = range(10, 49)
"""The layers that are compared with theory: the first still feel the input, the last the loss."""


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{a.name: getattr(torch, a.name) for a in (TANH, ERF, RELU, SIGMOID)},
    **{name: getattr(nn.functional, name) for name in ("gelu", "silu", "selu")},
}


def linear(fan_in: int, fan_out: int, sigma_w: float, sigma_b: float = 0.0) -> nn.Linear:
    """``W ~ N(0, sigma_w^2 / fan_in)`` and ``b ~ N(0, sigma_b^2)``."""
    layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    nn.init.normal_(layer.weight, std=sigma_w / math.sqrt(fan_in))
    nn.init.normal_(layer.bias, std=sigma_b)
    return layer


def perceptron(activation: Activation, sigma_w: float, sigma_b: float) -> nn.Sequential:
    """DEPTH layers of WIDTH, each followed by ``activation``."""
    layers = ((linear(WIDTH, WIDTH, sigma_w, sigma_b), Function(FUNCTIONS[activation.name])) for _ in range(DEPTH))
    return nn.Sequential(*(module for layer in layers for module in layer))


def at_fixed_point(activation: Activation, sigma_w: float, sigma_b: float) -> Tensor:
    """Inputs that give the first layer's pre-activations the variance q* of those at depth."""
    q = fixed_point(activation, sigma_w, sigma_b)
    return torch.randn(BATCH, WIDTH) * math.sqrt((q - sigma_b**2) / sigma_w**2)


class Block(nn.Module):
    """``x + W2 relu(W1 x)``, where the branch passes ``scale^2`` of the squared gradient: He's 2, ReLU's half, scale^2.

    Args:
        scale: sigma_w of W2.
        before: a norm at the beginning of the branch.
        after: a norm after the sum.
    """

    def __init__(self, scale: float, before: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        branch = [linear(WIDTH, WIDTH, math.sqrt(2)), nn.ReLU(), linear(WIDTH, WIDTH, scale)]
        self.branch = nn.Sequential(*([before] if before else []), *branch)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        out = x + self.branch(x)
        return self.after(out) if self.after else out


def plain_norm() -> nn.Module:
    """LayerNorm without weights."""
    return nn.LayerNorm(WIDTH, elementwise_affine=False)


class Last(nn.Module):
    """The last output alone, as a classifier of sequences has it, or all of them."""

    def __init__(self, cell: nn.RNNBase, every: bool = False) -> None:
        super().__init__()
        self.cell = cell
        self.every = every

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cell(x)[0]
        return out if self.every else out[-1]


class Loop(nn.Module):
    """The same by hand, with one cell called at every step."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(x.shape[1], self.cell.hidden_size)
        for step in x:
            hidden = self.cell(step, hidden)
        return hidden


def draw(cell: nn.RNNBase | nn.RNNCellBase, sigma_w: float, sigma_u: float) -> None:
    """Gaussian weights, recurrent and of the input, and no biases."""
    for name, p in cell.named_parameters():
        sigma = 0.0 if name.startswith("bias") else sigma_w if name.startswith("weight_hh") else sigma_u
        nn.init.normal_(p, std=sigma / math.sqrt(p.shape[-1]))


def profile_of(model: nn.Module, x: Tensor) -> BackwardProfile:
    """What gradwatch sees of a loss whose gradient is random: one that knows nothing of the network."""
    with gw.probe(model) as profile:
        out = model(x)
        out.backward(torch.randn_like(out))
    return profile


def inside(profile: BackwardProfile, layers: range = INSIDE, modules: int = 2) -> BackwardProfile:
    """The part of the profile of a Sequential whose layers are ``modules`` modules each."""
    found = (s for s in profile.segments if int(s.layer.partition(".")[0]) // modules in layers)
    return replace(profile, segments=tuple(found))
