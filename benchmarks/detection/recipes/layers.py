"""Activations and normalisations by name."""

from __future__ import annotations

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    return ACTIVATIONS[name]()


def norm(name: str | None, width: int, images: bool = False) -> nn.Module:
    """``"batch"``, ``"layer"`` or None, over ``width`` features (of vectors, or channels of ``images``)."""
    if name is None:
        return nn.Identity()
    if name == "layer":
        return nn.GroupNorm(1, width) if images else nn.LayerNorm(width)
    return nn.BatchNorm2d(width) if images else nn.BatchNorm1d(width)
