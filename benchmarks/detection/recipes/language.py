"""Transformers of published kinds on tokens: left to right, masked, replaced, and from one sequence to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.recipes.attention import (
    Attention,
    DisentangledAttention,
    RelativeAttention,
    RotaryAttention,
)
from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.task import Task

VOCABULARY = 24
LENGTH = 16
MASK = VOCABULARY
EXAMPLES = 512
MEASURED = 64
FAITHFUL = 0.9
"""A token is followed by the one that belongs to it with this probability, else by any."""

FAVOURITE = 0.8

BEST = FAITHFUL + (1 - FAITHFUL) / VOCABULARY
"""Accuracy of whoever knows the language, from left to right."""


@cache
def sentences() -> Tensor:
    """Tokens int64 [EXAMPLES, LENGTH] of a language in which each token has one that usually follows it."""
    generator = torch.Generator().manual_seed(0)
    follows = torch.randperm(VOCABULARY, generator=generator)
    tokens = torch.randint(VOCABULARY, (EXAMPLES, LENGTH), generator=generator)
    faithful = torch.rand(EXAMPLES, LENGTH, generator=generator) < FAITHFUL
    for t in range(1, LENGTH):
        tokens[:, t] = torch.where(faithful[:, t], follows[tokens[:, t - 1]], tokens[:, t])
    return tokens


@cache
def topical() -> Tensor:
    """Tokens int64 [EXAMPLES, LENGTH] of sentences with one of 8 topics, each of which has 3 words of its own.

    Of those the first is taken with a probability of ``FAVOURITE``: the accuracy of whoever knows the topic.
    """
    generator = torch.Generator().manual_seed(0)
    topics = torch.randint(8, (EXAMPLES, 1), generator=generator)
    other = torch.randint(1, 3, (EXAMPLES, LENGTH), generator=generator)
    favourite = torch.rand(EXAMPLES, LENGTH, generator=generator) < FAVOURITE
    return 3 * topics + torch.where(favourite, 0, other)


def left_to_right(seed: int, *, model: Mapping[str, Any] | None = None, **loop: Any) -> Task:
    """Predict each next token, as GPT does; the metric is the share of right ones, at most ``BEST``.

    Args:
        seed: of weights and batches.
        model: arguments of ``Transformer``.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    tokens = sentences()
    network = Transformer(**{"causal": True, **(model or {})})

    def loss(rows: Tensor) -> Tensor:
        batch = tokens[rows]
        return F.cross_entropy(network(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def metric() -> float:
        batch = tokens[:MEASURED]
        return (network(batch[:, :-1]).argmax(-1) == batch[:, 1:]).double().mean().item()

    return run(network, seed, Loop(**loop), loss, metric, examples=EXAMPLES, trivial=_most_frequent(tokens))


def masked(seed: int, *, model: Mapping[str, Any] | None = None, **loop: Any) -> Task:
    """Restore masked tokens, as BERT does: 15% of them; the metric is the share of right ones, at most ``FAVOURITE``.

    Args:
        seed: of weights, batches and masks.
        model: arguments of ``Transformer``.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    tokens = topical()
    network = Transformer(**(model or {}))
    chosen = torch.rand(MEASURED, LENGTH, generator=torch.Generator().manual_seed(seed)) < 0.15

    def hidden(batch: Tensor, at: Tensor) -> Tensor:
        return network(batch.masked_fill(at, MASK))[at]

    def loss(rows: Tensor) -> Tensor:
        batch = tokens[rows]
        at = torch.rand(batch.shape) < 0.15
        return F.cross_entropy(hidden(batch, at), batch[at])

    def metric() -> float:
        batch = tokens[:MEASURED]
        return (hidden(batch, chosen).argmax(-1) == batch[chosen]).double().mean().item()

    return run(network, seed, Loop(**loop), loss, metric, examples=EXAMPLES, trivial=_most_frequent(tokens))


def replaced(seed: int, *, model: Mapping[str, Any] | None = None, weight: float = 50.0, **loop: Any) -> Task:
    """Find the tokens that a small generator replaced, as ELECTRA does (Clark et al., 2020).

    Half of the replaced tokens are drawn at random: here the generator's guesses soon are as good as the originals. The
    metric is the area under the discriminator's ROC curve for such tokens, 0.5 for the trivial one.

    Args:
        seed: of weights, batches, masks and samples.
        model: arguments of both ``Transformer``s; the generator is a quarter as wide and shares the embedding.
        weight: of the discriminator's loss.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    tokens = topical()
    network = Electra(**(model or {}))
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(MEASURED, LENGTH, generator=generator) < 0.15
    drawn = torch.randint(VOCABULARY, (MEASURED, LENGTH), generator=generator)

    def loss(rows: Tensor) -> Tensor:
        batch = tokens[rows]
        at = torch.rand(batch.shape) < 0.15
        logits = network.generator(batch.masked_fill(at, MASK))[at]
        guess = batch.clone()
        sampled = torch.distributions.Categorical(logits=logits.detach()).sample()
        guess[at] = torch.where(torch.rand(sampled.shape) < 0.5, sampled, torch.randint(VOCABULARY, sampled.shape))
        found = F.binary_cross_entropy_with_logits(network.discriminator(guess)[..., 0], (guess != batch).float())
        return F.cross_entropy(logits, batch[at]) + weight * found

    def metric() -> float:
        batch = tokens[:MEASURED]
        guess = torch.where(wrong, drawn, batch)
        scores, is_wrong = network.discriminator(guess)[..., 0], guess != batch
        return area_under_curve(scores[is_wrong], scores[~is_wrong])

    return run(network, seed, Loop(**loop), loss, metric, examples=EXAMPLES, trivial=0.5)


def translated(seed: int, *, width: int = 48, depth: int = 2, **loop: Any) -> Task:
    """Write a sequence backwards, with an encoder and a decoder; the metric is the share of right tokens.

    Args:
        seed: of weights and batches.
        width: of each token.
        depth: blocks of the encoder, and of the decoder.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    sources = torch.randint(8, (EXAMPLES, 6), generator=torch.Generator().manual_seed(0))
    targets = sources.flip(1)
    network = Translator(8, 6, width, depth)

    def logits(rows: Tensor | slice) -> Tensor:
        return network(sources[rows], F.pad(targets[rows, :-1], (1, 0), value=8))

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(logits(rows).flatten(0, 1), targets[rows].flatten())

    def metric() -> float:
        rows = slice(0, MEASURED)
        return (logits(rows).argmax(-1) == targets[rows]).double().mean().item()

    return run(network, seed, Loop(**loop), loss, metric, examples=EXAMPLES, trivial=1 / 8)


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.activation = nn.SiLU()
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention and two linear layers; LayerNorm before each of them, or after each sum."""

    def __init__(self, width: int, attention: nn.Module, post: bool, modern: bool) -> None:
        super().__init__()
        norm = nn.RMSNorm if modern else nn.LayerNorm
        self.post = post
        self.attention, self.attention_norm = attention, norm(width)
        self.mlp: nn.Module = (
            GatedMLP(width)
            if modern
            else nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        )
        self.mlp_norm = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.attention_norm(x + self.attention(x))
            return self.mlp_norm(x + self.mlp(x))
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """Tokens to logits.

    Args:
        depth: blocks.
        width: of each token.
        heads: of attention.
        attention: one of ``ATTENTION``.
        post: LayerNorm after each sum, as in BERT, or before each branch.
        causal: whether a token sees only those before it.
        modern: RMSNorm, gated linear layers and no biases, as in LLaMA.
        shared: one block used ``depth`` times, as in ALBERT.
        factor: width of the embedding, where that is another.
        tied: the embedding is the output layer too.
        outputs: logits of each token.
        std: standard deviation of all weights; None leaves them as PyTorch makes them.
        embedding: use this one.
    """

    def __init__(
        self,
        depth: int = 2,
        width: int = 48,
        heads: int = 4,
        *,
        attention: str = "plain",
        post: bool = False,
        causal: bool = False,
        modern: bool = False,
        shared: bool = False,
        factor: int | None = None,
        tied: bool = True,
        outputs: int = VOCABULARY,
        std: float | None = 0.02,
        embedding: nn.Embedding | None = None,
    ) -> None:
        super().__init__()
        wide = factor or width
        self.embedding = nn.Embedding(VOCABULARY + 1, wide)
        self.position = nn.Embedding(LENGTH, wide) if attention == "plain" else None
        self.embedding_norm = nn.LayerNorm(wide) if post else nn.Identity()
        self.widen = nn.Linear(wide, width) if wide != width else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(width, ATTENTION[attention](width, heads, causal), post, modern)
            for _ in range(1 if shared else depth)
        )
        self.depth = depth
        self.norm = nn.Identity() if post else (nn.RMSNorm if modern else nn.LayerNorm)(width)
        self.narrow = nn.Linear(width, wide) if wide != width else nn.Identity()
        self.head = nn.Linear(wide, VOCABULARY + 1 if tied else outputs, bias=False)
        if std is not None:
            self.apply(lambda module: _normal(module, std))
        if embedding is not None:
            self.embedding = embedding
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.position is not None:
            x = x + self.position(torch.arange(tokens.shape[1]))
        x = self.widen(self.embedding_norm(x))
        for i in range(self.depth):
            x = self.blocks[i % len(self.blocks)](x)
        return self.head(self.narrow(self.norm(x)))


class Electra(nn.Module):
    """``generator`` and ``discriminator``, which share the embedding."""

    def __init__(self, width: int = 48, depth: int = 2, factor: int = 24, **model: Any) -> None:
        super().__init__()
        self.generator = Transformer(1, max(16, width // 4), factor=factor, post=True, **model)
        self.discriminator = Transformer(
            depth, width, factor=factor, post=True, tied=False, outputs=1, embedding=self.generator.embedding, **model
        )


class Translator(nn.Module):
    """Encoder and decoder with PyTorch's own layers, LayerNorm after each sum (Vaswani et al., 2017)."""

    def __init__(self, symbols: int, length: int, width: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols + 1, width)
        self.position = nn.Parameter(0.1 * torch.randn(length, width))
        self.core = nn.Transformer(width, 4, depth, depth, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, symbols)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        source, target = self.embedding(source) + self.position, self.embedding(target) + self.position
        return self.head(self.core(source, target, tgt_mask=self.mask, tgt_is_causal=True))


ATTENTION: Mapping[str, Callable[[int, int, bool], nn.Module]] = {
    "plain": lambda width, heads, causal: Attention(width, heads, causal=causal),
    "rotary": lambda width, heads, causal: RotaryAttention(width, heads, bias=False, causal=causal),
    "relative": lambda width, heads, causal: RelativeAttention(width, heads, LENGTH, bias=False, causal=causal),
    "disentangled": lambda width, heads, causal: DisentangledAttention(width, heads, LENGTH),
}


def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """The probability that a positive score is above a negative one, half where they are equal."""
    above = positive[:, None] - negative
    return ((above > 0).double() + 0.5 * (above == 0).double()).mean().item()


def _normal(module: nn.Module, std: float) -> None:
    """BERT's and GPT-2's initialisation."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _most_frequent(tokens: Tensor) -> float:
    return tokens.flatten().bincount().max().item() / tokens.numel()
