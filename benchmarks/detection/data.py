"""Data that comes with scikit-learn or is generated: small, the same every time, made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from sklearn import datasets
from torch import Tensor

MARGIN = 1e-6
"""Features that hardly vary (pixels that are always blank) are centred, and not divided by their spread."""


@dataclass(frozen=True)
class Data:
    """Inputs [N, ...] and what is to be learned of them: class numbers int64 [N], or float32 values [N, 1]."""

    x: Tensor
    y: Tensor
    outputs: int
    """Classes, or values per example."""

    @property
    def has_classes(self) -> bool:
        return not self.y.is_floating_point()

    def first(self, examples: int) -> Data:
        return Data(self.x[:examples], self.y[:examples], self.outputs)

    def scaled(self, inputs: float = 1.0, feature: float = 1.0, targets: float = 1.0) -> Data:
        """All inputs, then the first feature, and the targets where they are values, multiplied by a number."""
        if inputs == feature == targets == 1.0:
            return self
        x = self.x * inputs
        x[:, 0] *= feature
        return Data(x, self.y if self.has_classes else self.y * targets, self.outputs)

    @property
    def trivial(self) -> float:
        """What the best constant answer gets: the largest class's share, or an R^2 of 0."""
        return self.y.bincount().max().item() / len(self.y) if self.has_classes else 0.0


def standardised(x: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 in each column."""
    mean, spread = x.mean(dim=0), x.std(dim=0)
    return (x - mean) / torch.where(spread > MARGIN, spread, 1.0)


@cache
def packaged(name: str, raw: bool = False) -> Data:
    """``digits``, ``iris``, ``wine``, ``breast_cancer`` (classes) or ``diabetes`` (one value) of scikit-learn.

    ``raw`` leaves inputs and values in the units in which they were measured.

    >>> packaged("digits").x.shape, packaged("digits").outputs
    (torch.Size([1797, 64]), 10)
    """
    load = getattr(datasets, f"load_{name}")
    inputs, targets = load(return_X_y=True, scaled=False) if name == "diabetes" else load(return_X_y=True)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets)
    if name == "diabetes":
        values = y.float()[:, None]
        return Data(x, values, 1) if raw else Data(standardised(x), standardised(values), 1)
    return Data(x if raw else standardised(x), y.long(), int(y.max()) + 1)


@cache
def pixels() -> Data:
    """Digits as ink from 0 to 1, and one blank image among them (at the place of the first, a zero)."""
    digits = packaged("digits", raw=True)
    x = digits.x / 16
    x[0] = 0
    return Data(x, digits.y, digits.outputs)


@cache
def blobs(examples: int = 600, centers: int = 6, features: int = 8) -> Data:
    """Clusters in ``features`` dimensions that overlap a little."""
    x, y = datasets.make_blobs(examples, features, centers=centers, cluster_std=3.0, random_state=0)
    return Data(standardised(torch.tensor(x, dtype=torch.float32)), torch.tensor(y), centers)


@cache
def circles(examples: int = 600) -> Data:
    """Two rings, one within the other: no straight line parts them."""
    x, y = datasets.make_circles(examples, noise=0.08, factor=0.5, random_state=0)
    return Data(standardised(torch.tensor(x, dtype=torch.float32)), torch.tensor(y), 2)


@cache
def copy_first(length: int = 40, symbols: int = 4, examples: int = 1024) -> Data:
    """Tokens int64 [N, length]: the answer is the first of them, the others mean nothing."""
    tokens = _tokens(examples, length, symbols)
    return Data(tokens, tokens[:, 0].clone(), symbols)


@cache
def first_and_last(length: int = 40, symbols: int = 4, examples: int = 1024) -> Data:
    """Tokens int64 [N, length]: the answer needs the first (is it in the upper half?) and the last of them."""
    tokens = _tokens(examples, length, symbols)
    return Data(tokens, (tokens[:, 0] * 2 // symbols) * symbols + tokens[:, -1], 2 * symbols)


@cache
def parity(length: int = 40, bits: int = 2, examples: int = 1024) -> Data:
    """Bits int64 [N, length]: the answer is the parity of the first few."""
    tokens = _tokens(examples, length, 2)
    return Data(tokens, tokens[:, :bits].sum(dim=1) % 2, 2)


@cache
def marked(length: int = 16, symbols: int = 6, examples: int = 1024) -> Data:
    """Tokens int64 [N, length]: the answer is the token at the mark, which is a token of twice the vocabulary."""
    tokens = _tokens(examples, length, symbols)
    at = torch.randint(length, (examples,), generator=torch.Generator().manual_seed(1))
    rows = torch.arange(examples)
    answers = tokens[rows, at]
    tokens[rows, at] += symbols
    return Data(tokens, answers, symbols)


@cache
def adding(length: int = 40, examples: int = 1024) -> Data:
    """Numbers and marks, float32 [N, length, 2]: the answer is the sum of the two marked numbers.

    One mark is in the first half and one in the second (Hochreiter and Schmidhuber, 1997).
    """
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(examples, length, generator=generator)
    marks, rows, half = torch.zeros(examples, length), torch.arange(examples), length // 2
    for start, end in ((0, half), (half, length)):
        marks[rows, torch.randint(start, end, (examples,), generator=generator)] = 1.0
    sums = (numbers * marks).sum(dim=1, keepdim=True)
    return Data(torch.stack([numbers, marks], dim=2), standardised(sums), 1)


@cache
def autoregressive(length: int = 40, examples: int = 1024) -> Data:
    """float32 [N, length, 1]: the answer is the next value, of which the last two tell all that can be told."""
    noise = torch.randn(examples, length + 1, generator=torch.Generator().manual_seed(0))
    values = [noise[:, 0], noise[:, 1]]
    for t in range(2, length + 1):
        values.append(1.2 * values[-1] - 0.5 * values[-2] + 0.5 * noise[:, t])
    return _forecast(torch.stack(values, dim=1))


@cache
def sines(length: int = 40, examples: int = 1024) -> Data:
    """float32 [N, length, 1]: a noisy sine of its own frequency and phase; the answer is the next value."""
    generator = torch.Generator().manual_seed(0)
    frequency = 0.1 + 0.3 * torch.rand(examples, 1, generator=generator)
    phase = 2 * torch.pi * torch.rand(examples, 1, generator=generator)
    noise = 0.1 * torch.randn(examples, length + 1, generator=generator)
    return _forecast(torch.sin(frequency * torch.arange(length + 1.0) + phase) + noise)


@cache
def walk(length: int = 40, examples: int = 1024) -> Data:
    """float32 [N, length, 1]: a random walk; the answer is the next value, of which the last one tells most."""
    steps = 0.1 * torch.randn(examples, length + 1, generator=torch.Generator().manual_seed(0))
    return _forecast(steps.cumsum(dim=1))


@cache
def tail(length: int = 40, features: int = 3, examples: int = 1024) -> Data:
    """float32 [N, length, features]: whether the first feature's mean over the last five time steps is positive."""
    x = torch.randn(examples, length, features, generator=torch.Generator().manual_seed(0))
    return Data(x, (x[:, -5:, 0].mean(dim=1) > 0).long(), 2)


def _forecast(values: Tensor) -> Data:
    """Of sequences [N, length + 1], the last value from those before."""
    return Data(values[:, :-1, None], values[:, -1:], 1)


def _tokens(examples: int, length: int, symbols: int) -> Tensor:
    return torch.randint(symbols, (examples, length), generator=torch.Generator().manual_seed(0))
