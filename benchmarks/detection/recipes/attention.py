"""Attention as published models write it: separate query, key and value projections, and their kinds of position."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017); the bias of ``key`` has no gradient, softmax cancels it."""

    def __init__(self, width: int, heads: int, *, bias: bool = True, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        query, key, value = self.split(self.query(x)), self.split(self.key(context)), self.split(self.value(context))
        scores = self.scores(query, key)
        if self.causal:
            time = scores.shape[-1]
            scores = scores.masked_fill(torch.ones(time, time, dtype=torch.bool).triu(1), -torch.inf)
        return self.out((scores.softmax(-1) @ value).transpose(-3, -2).flatten(-2))

    def split(self, x: Tensor) -> Tensor:
        """[..., time, width] -> [..., heads, time, width / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


class RelativeAttention(Attention):
    """With one learned bias per head and distance, zero at first (T5, Raffel et al., 2020; Swin, Liu et al., 2021)."""

    def __init__(self, width: int, heads: int, time: int, *, bias: bool = True, causal: bool = False) -> None:
        super().__init__(width, heads, bias=bias, causal=causal)
        self.relative = nn.Parameter(torch.zeros(heads, 2 * time - 1))
        position = torch.arange(time)
        self.register_buffer("distance", position[:, None] - position + time - 1, persistent=False)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        time = query.shape[-2]
        return super().scores(query, key) + self.relative[:, self.distance[:time, :time]]


class RotaryAttention(Attention):
    """Queries and keys turned by an angle that grows with their position (RoFormer, Su et al., 2021)."""

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        return super().scores(_turned(query), _turned(key))


class DisentangledAttention(Attention):
    """Content to position and position to content scores beside the usual ones (DeBERTa, He et al., 2021)."""

    def __init__(self, width: int, heads: int, time: int) -> None:
        super().__init__(width, heads)
        self.relative = nn.Parameter(0.02 * torch.randn(2 * time - 1, width))
        self.position_query = nn.Linear(width, width)
        self.position_key = nn.Linear(width, width, bias=False)
        position = torch.arange(time)
        self.register_buffer("distance", position[:, None] - position + time - 1, persistent=False)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        position_key = self.split(self.position_key(self.relative))
        position_query = self.split(self.position_query(self.relative))
        time = query.shape[-2]
        distance = self.distance[:time, :time].expand(query.shape[:-1] + (time,))
        to_position = (query @ position_key.transpose(-1, -2)).gather(-1, distance)
        from_position = (key @ position_query.transpose(-1, -2)).gather(-1, distance).transpose(-1, -2)
        return (query @ key.transpose(-1, -2) + to_position + from_position) / (3 * query.shape[-1]) ** 0.5


def _turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    speed = 100.0 ** (-torch.arange(half) / half)
    angle = torch.arange(x.shape[-2])[:, None] * speed
    real, imaginary = x[..., :half], x[..., half:]
    return torch.cat(
        [real * angle.cos() - imaginary * angle.sin(), real * angle.sin() + imaginary * angle.cos()], dim=-1
    )
