"""A small transformer encoder that classifies sequences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import Data, marked, packaged
from benchmarks.detection.recipes.attention import Attention
from benchmarks.detection.recipes.initialisation import initialise
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.task import Task


def transformer(
    seed: int,
    *,
    data: str = "digits",
    input_scale: float = 1.0,
    depth: int = 2,
    width: int = 32,
    heads: int = 4,
    norm: str | None = "pre",
    norm_gain: float = 1.0,
    residual: bool = True,
    residual_scale: float = 1.0,
    logit_scale: float | None = None,
    init: str = "lecun",
    gain: float = 1.0,
    optimizer: str = "adam",
    lr: float = 3e-3,
    steps: int = 200,
    batch: int = 32,
    **loop: Any,
) -> Task:
    """``depth`` blocks of attention and two linear layers, the mean over the sequence, and one linear layer.

    Args:
        seed: of weights and batches.
        data: ``"digits"``, of which each of the 8 rows is a token, or ``"marked"`` tokens.
        input_scale: factor of every pixel.
        depth: blocks.
        width: of each token.
        heads: of attention.
        norm: LayerNorm ``"pre"``, before each branch, ``"post"``, after each sum, or None.
        norm_gain: LayerNorm's weight at the start.
        residual: add each branch to its input, or put it in its place.
        residual_scale: factor of the branch.
        logit_scale: factor of query times key, by default 1/sqrt(width / heads) (Vaswani et al. 2017).
        init: scheme of all weights in the blocks.
        gain: factor of the scheme's standard deviation.
        optimizer: see ``Loop``, as for all that follow.
        lr: step size.
        steps: optimizer steps.
        batch: examples per step.
        loop: the rest.
    """
    torch.manual_seed(seed)
    examples = tokens(data, input_scale)
    if logit_scale is None:
        logit_scale = 1 / math.sqrt(width / heads)
    scale = residual_scale if residual else 0.0
    blocks = [Block(width, heads, norm, scale, logit_scale) for _ in range(depth)]
    model = Encoder(examples, width, blocks, final_norm=norm == "pre")
    for name, p in model.named_parameters():
        if name.startswith("blocks.") and p.ndim == 2:
            initialise(p, init, gain)
        elif name.startswith("blocks.") and "norm" in name and name.endswith("weight"):
            nn.init.constant_(p, norm_gain)
    return supervised(model, examples, seed, optimizer=optimizer, lr=lr, steps=steps, batch=batch, **loop)


def tokens(name: str, input_scale: float) -> Data:
    if name == "marked":
        return marked()
    digits = packaged("digits").scaled(input_scale)
    return Data(digits.x.view(-1, 8, 8), digits.y, digits.outputs)


class ScaledAttention(Attention):
    """Attention with a factor of query times key that may be wrong."""

    def __init__(self, width: int, heads: int, logit_scale: float) -> None:
        super().__init__(width, heads)
        self.logit_scale = logit_scale

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key.transpose(-1, -2) * self.logit_scale


class Block(nn.Module):
    """Attention and two linear layers; ``branch`` is the factor of each branch when added, 0 where it is not."""

    def __init__(self, width: int, heads: int, norm: str | None, branch: float, logit_scale: float) -> None:
        super().__init__()
        self.attention = ScaledAttention(width, heads, logit_scale)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm_1, self.norm_2 = (nn.LayerNorm(width) if norm else nn.Identity() for _ in range(2))
        self.post = norm == "post"
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return self._add(self._add(x, self.attention, self.norm_1), self.mlp, self.norm_2)

    def _add(self, x: Tensor, branch: nn.Module, norm: nn.Module) -> Tensor:
        h = branch(x if self.post else norm(x))
        total = x + self.branch * h if self.branch else h
        return norm(total) if self.post else total


class Encoder(nn.Module):
    """``embed`` and ``position``, ``blocks.0``, ``blocks.1``, ..., ``norm`` and ``head``."""

    def __init__(self, examples: Data, width: int, blocks: list[Block], final_norm: bool) -> None:
        super().__init__()
        if examples.x.is_floating_point():
            self.embed: nn.Module = nn.Linear(examples.x.shape[2], width)
        else:
            self.embed = nn.Embedding(int(examples.x.max()) + 1, width)
        self.position = nn.Parameter(torch.randn(examples.x.shape[1], width))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width) if final_norm else nn.Identity()
        self.head = nn.Linear(width, examples.outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.norm(self.blocks(self.embed(x) + self.position)).mean(dim=1))
        return outputs
