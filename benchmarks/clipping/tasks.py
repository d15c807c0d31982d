"""Two small networks whose gradients need clipping: one through time, one that is a language model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from sklearn import datasets
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class Task(NamedTuple):
    """A network, its optimizer and its data; all the same after the same seed.

    Args:
        title: for the table.
        build: makes the network.
        optimizer: makes its optimizer.
        batch: draws one from a generator.
        held_out: what the loss is read on.
    """

    title: str
    build: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    batch: Callable[[torch.Generator], Batch]
    held_out: Callable[[], Batch]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


class Reader(nn.Module):
    """Reads an image in 16 pieces of 4 pixels, and names it at the end."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(4, width, batch_first=True), nn.Linear(width, 10)
        nn.init.orthogonal_(self.rnn.weight_hh_l0)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        logits: Tensor = self.head(out[:, -1])
        return logits


class Writer(nn.Module):
    """A transformer of two layers that says the next character."""

    def __init__(self, characters: int, context: int = 32, width: int = 32) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, width), nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, characters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.characters(x) + self.places.weight
        logits: Tensor = self.head(self.layers(hidden, mask=self.mask, is_causal=True))
        return logits


@cache
def _digits() -> Batch:
    x, y = datasets.load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).view(-1, 16, 4) / 16, torch.tensor(y)


@cache
def _text() -> tuple[Tensor, int]:
    """What scikit-learn says of its data sets, as numbers of characters; and how many characters there are."""
    names = ("iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud")
    text = "".join(getattr(datasets, f"load_{name}")().DESCR for name in names)
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    return torch.tensor([letters[letter] for letter in text]), len(letters)


def _images(generator: torch.Generator) -> Batch:
    x, y = _digits()
    rows = torch.randint(0, 1500, (32,), generator=generator)
    return x[rows], y[rows]


def _lines(starts: Tensor, context: int = 32) -> Batch:
    text, _ = _text()
    windows = text[starts[:, None] + torch.arange(context + 1)]
    return windows[:, :-1], windows[:, 1:]


def _excerpts(generator: torch.Generator) -> Batch:
    text, _ = _text()
    return _lines(torch.randint(0, int(0.9 * len(text)) - 33, (16,), generator=generator))


def _last_lines() -> Batch:
    text, _ = _text()
    return _lines(torch.arange(int(0.9 * len(text)), len(text) - 33, 8))


def _last_images() -> Batch:
    x, y = _digits()
    return x[1500:], y[1500:]


TASKS = {
    "rnn": Task(
        "RNN, digits in 16 pieces, SGD",
        Reader,
        lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        _images,
        _last_images,
    ),
    "transformer": Task(
        "transformer, characters, AdamW",
        lambda: Writer(_text()[1]),
        lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3),
        _excerpts,
        _last_lines,
    ),
}
