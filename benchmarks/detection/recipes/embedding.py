"""Embeddings of which a step touches few rows: words beside each other, ratings, bags of words."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import Data
from benchmarks.detection.recipes.language import area_under_curve
from benchmarks.detection.recipes.loops import Loop, run, supervised
from benchmarks.detection.task import Task

WORDS, TOPICS = 2000, 8


@cache
def documents(examples: int = 1024, length: int = 16) -> Data:
    """Word numbers int64 [N, length] and the topic of each document; the k-th word is used about 1/k as often."""
    generator = torch.Generator().manual_seed(0)
    topics = torch.randint(TOPICS, (examples,), generator=generator)
    frequency = 1 / torch.arange(1.0, WORDS // TOPICS + 1)
    ranks = frequency.expand(examples, -1).multinomial(length, replacement=True, generator=generator)
    common = torch.rand(ranks.shape, generator=generator) < 0.3
    drawn = torch.randint(TOPICS, ranks.shape, generator=generator)
    return Data(ranks * TOPICS + torch.where(common, drawn, topics[:, None]), topics, TOPICS)


def bag_of_words(seed: int, *, width: int = 32, sparse: bool = False, **loop: Any) -> Task:
    """The topic from the mean of the words' vectors (fastText, Joulin et al., 2017).

    Args:
        seed: of weights and batches.
        width: of a word's vector.
        sparse: gradients of the embedding are sparse tensors.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    data = documents()
    model = nn.Sequential(nn.EmbeddingBag(WORDS, width, sparse=sparse), nn.Linear(width, data.outputs))
    return supervised(model, data, seed, **loop)


def skip_gram(seed: int, *, width: int = 32, sparse: bool = False, **loop: Any) -> Task:
    """Words of one document against words drawn at random (word2vec, Mikolov et al., 2013).

    The metric is the area under the ROC curve of true pairs against random ones, 0.5 for the trivial score.

    Args:
        seed: of weights, batches and draws.
        width: of a word's vector.
        sparse: gradients are sparse tensors.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    words = documents().x
    model = SkipGram(width, sparse)

    def loss(rows: Tensor) -> Tensor:
        centre, context = words[rows, :-1].flatten(), words[rows, 1:].flatten()
        noise = words.flatten()[torch.randint(words.numel(), (len(centre), 4))]
        return -F.logsigmoid(model(centre, context)).mean() - F.logsigmoid(-model(centre[:, None], noise)).mean()

    generator = torch.Generator().manual_seed(seed)

    def metric() -> float:
        centre, context = words[:256, 0], words[:256, 1]
        noise = words.flatten()[torch.randint(words.numel(), (256,), generator=generator.manual_seed(seed))]
        return area_under_curve(model(centre, context), model(centre, noise))

    return run(model, seed, Loop(**loop), loss, metric, examples=len(words), trivial=0.5)


class SkipGram(nn.Module):
    """Two vectors per word, the second zero at first, and their product."""

    def __init__(self, width: int, sparse: bool) -> None:
        super().__init__()
        self.centre, self.context = (nn.Embedding(WORDS, width, sparse=sparse) for _ in range(2))
        nn.init.uniform_(self.centre.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.context.weight)

    def forward(self, centre: Tensor, context: Tensor) -> Tensor:
        return (self.centre(centre) * self.context(context)).sum(-1)


def ratings(seed: int, *, rank: int = 8, **loop: Any) -> Task:
    """Ratings as products of users' and items' vectors, plus a bias of each (Koren et al., 2009); R^2.

    Args:
        seed: of weights and batches.
        rank: length of the vectors.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randint(200, (4096,), generator=generator), torch.randint(300, (4096,), generator=generator)
    taste, kind = torch.randn(200, 3, generator=generator), torch.randn(300, 3, generator=generator)
    likes = (taste[users] * kind[items]).sum(1) + torch.randn(300, generator=generator)[items]
    data = Data(torch.stack([users, items], dim=1), ((likes - likes.mean()) / likes.std())[:, None], 1)
    return supervised(Factors(rank), data, seed, **loop)


class Factors(nn.Module):
    """Vectors and biases of 200 users and 300 items."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(200, rank), nn.Embedding(300, rank)
        self.user_bias, self.item_bias = nn.Embedding(200, 1), nn.Embedding(300, 1)
        for table in (self.users, self.items, self.user_bias, self.item_bias):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        user, item = pairs.unbind(1)
        match = (self.users(user) * self.items(item)).sum(1, keepdim=True)
        return match + self.user_bias(user) + self.item_bias(item)


def wide_and_deep(seed: int, *, width: int = 32, **loop: Any) -> Task:
    """A linear model of words beside a deep one on their embeddings (Cheng et al., 2016), on the documents.

    Args:
        seed: of weights and batches.
        width: of the embedding and the hidden layers.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    return supervised(WideAndDeep(width), documents(), seed, **loop)


class WideAndDeep(nn.Module):
    """``wide`` is zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.EmbeddingBag(WORDS, TOPICS, mode="sum")
        nn.init.zeros_(self.wide.weight)
        self.embedding = nn.EmbeddingBag(WORDS, width)
        self.deep = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, TOPICS))

    def forward(self, words: Tensor) -> Tensor:
        return self.wide(words) + self.deep(self.embedding(words))
