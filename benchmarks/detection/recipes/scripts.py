"""Small versions of scripts that people start from: pytorch/examples, PyTorch's tutorials, and a few others.

Each keeps the structure, the initialisation, the optimizer and, where the smaller budget allows, the learning rate.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import make_moons
from torch import Tensor, nn

from benchmarks.detection.data import Data, packaged, standardised
from benchmarks.detection.recipes.language import LENGTH, VOCABULARY, sentences
from benchmarks.detection.recipes.loops import Loop, run, supervised
from benchmarks.detection.recipes.losses import r_squared
from benchmarks.detection.task import Task


def mnist(seed: int, **loop: Any) -> Task:
    """pytorch/examples, mnist: two convolutions, dropout, log softmax, Adadelta."""
    torch.manual_seed(seed)
    return supervised(Mnist(), _images(), seed, **loop, loss="nll")


class Mnist(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(32 * 4, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = self.dropout2(F.relu(self.fc1(self.dropout1(x).flatten(1))))
        return self.fc2(x)


def mnist_rnn(seed: int, **loop: Any) -> Task:
    """pytorch/examples, mnist_rnn: an LSTM over the rows, BatchNorm and dropout, Adadelta."""
    torch.manual_seed(seed)
    digits = packaged("digits")
    return supervised(MnistRnn(), Data(digits.x.view(-1, 8, 8), digits.y, 10), seed, **loop, loss="nll")


class MnistRnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 32, batch_first=True)
        self.batchnorm, self.dropout = nn.BatchNorm1d(32), nn.Dropout(0.25)
        self.fc1, self.fc2 = nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        last = self.dropout(self.batchnorm(self.rnn(x)[0][:, -1]))
        return self.fc2(F.relu(self.fc1(last)))


def word_language_model(seed: int, *, tied: bool = True, **loop: Any) -> Task:
    """pytorch/examples, word_language_model: two LSTM layers, weights from U(-0.1, 0.1), SGD with clipping at 0.25."""
    torch.manual_seed(seed)
    tokens = sentences()
    model = WordModel(48, tied)

    def logits(rows: Tensor | slice) -> Tensor:
        return model(tokens[rows, :-1]).flatten(0, 1)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(logits(rows), tokens[rows, 1:].flatten())

    def metric() -> float:
        return (logits(slice(0, 128)).argmax(1) == tokens[:128, 1:].flatten()).double().mean().item()

    trivial = tokens.flatten().bincount().max().item() / tokens.numel()
    return run(model, seed, Loop(**loop), loss, metric, examples=len(tokens), trivial=trivial)


class WordModel(nn.Module):
    def __init__(self, width: int, tied: bool) -> None:
        super().__init__()
        self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(VOCABULARY, width)
        self.rnn = nn.LSTM(width, width, 2, dropout=0.2, batch_first=True)
        self.decoder = nn.Linear(width, VOCABULARY)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.drop(self.rnn(self.drop(self.encoder(tokens)))[0]))


def time_sequence_prediction(seed: int, **loop: Any) -> Task:
    """pytorch/examples, time_sequence_prediction: sine waves, two LSTM cells in double precision, LBFGS at 0.8."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(0)
    phase = torch.randint(-40, 40, (24, 1), generator=generator)
    waves = ((torch.arange(25) + phase) / 5.0).double().sin()
    model = Sequence().double()

    def loss(rows: Tensor) -> Tensor:
        return F.mse_loss(model(waves[:, :-1]), waves[:, 1:])

    def metric() -> float:
        return r_squared(model(waves[:, :-1]), waves[:, 1:])

    return run(model, seed, Loop(**{"batch": 1, **loop}), loss, metric, examples=24)


class Sequence(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.lstm1, self.lstm2 = nn.LSTMCell(1, width), nn.LSTMCell(width, width)
        self.linear = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = second = None
        outputs = []
        for now in x.split(1, dim=1):
            first = self.lstm1(now, first)
            second = self.lstm2(first[0], second)
            outputs.append(self.linear(second[0]))
        return torch.cat(outputs, dim=1)


def super_resolution(seed: int, **loop: Any) -> Task:
    """pytorch/examples, super_resolution: orthogonal convolutions and a pixel shuffle; R^2 of the pixels."""
    torch.manual_seed(seed)
    large = (packaged("digits", raw=True).x / 16).view(-1, 1, 8, 8)
    small = F.avg_pool2d(large, 2)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.PixelShuffle(2),
    )
    for i in (0, 2, 4, 6):
        nn.init.orthogonal_(model[i].weight, math.sqrt(2) if i < 6 else 1)

    def metric() -> float:
        return r_squared(model(small[:256]), large[:256])

    def loss(rows: Tensor) -> Tensor:
        return F.mse_loss(model(small[rows]), large[rows])

    return run(model, seed, Loop(**loop), loss, metric, examples=len(large))


def regression(seed: int, **loop: Any) -> Task:
    """pytorch/examples, regression: one linear layer fits a polynomial of degree 4, plain gradient steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 1, generator=generator) ** torch.arange(1, 5)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.3]]) + 3
    return supervised(nn.Linear(4, 1), Data(x, y, 1), seed, **loop, loss="huber")


def cifar10_tutorial(seed: int, **loop: Any) -> Task:
    """PyTorch's image classifier tutorial: LeNet, batches of 4, SGD with momentum 0.9 (there at 0.001, for longer)."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 60),
        nn.ReLU(),
        nn.Linear(60, 42),
        nn.ReLU(),
        nn.Linear(42, 10),
    )
    return supervised(model, _images(), seed, **loop)


def char_rnn(seed: int, **loop: Any) -> Task:
    """PyTorch's tutorial on classifying names: a plain RNN reads letters, one name per step, SGD."""
    torch.manual_seed(seed)
    return supervised(NameReader(), _names(), seed, **{"batch": 1, **loop}, loss="nll")


class NameReader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.h2o = nn.RNN(26, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, letters: Tensor) -> Tensor:
        return self.h2o(self.rnn(F.one_hot(letters, 26).float())[0][:, -1])


@cache
def _names(examples: int = 1024, length: int = 7) -> Data:
    """Letters int64 [N, length] of four languages, each with letters that it likes."""
    generator = torch.Generator().manual_seed(0)
    language = torch.randint(4, (examples,), generator=generator)
    liked = torch.rand(4, 26, generator=generator) ** 3
    return Data(liked[language].multinomial(length, replacement=True, generator=generator), language, 4)


def moons(seed: int, **loop: Any) -> Task:
    """micrograd's demo: two moons, 16 and 16 hidden units, hinge loss, the learning rate falling from 1 to 0.1."""
    torch.manual_seed(seed)
    x, y = make_moons(100, noise=0.1, random_state=0)
    data = Data(torch.tensor(x, dtype=torch.float32), torch.tensor(y), 2)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    return supervised(model, data, seed, **loop, loss="hinge")


def makemore(seed: int, **loop: Any) -> Task:
    """makemore's perceptron: embeddings of three characters, tanh after BatchNorm, a last layer that starts small."""
    torch.manual_seed(seed)
    windows = sentences().unfold(1, 4, 1).reshape(-1, 4)
    model = nn.Sequential(
        nn.Embedding(VOCABULARY, 10),
        nn.Flatten(),
        nn.Linear(30, 100, bias=False),
        nn.BatchNorm1d(100),
        nn.Tanh(),
        nn.Linear(100, VOCABULARY),
    )
    nn.init.kaiming_normal_(model[2].weight, nonlinearity="tanh")
    with torch.no_grad():
        model[5].weight.mul_(0.1)
    return supervised(model, Data(windows[:, :3], windows[:, 3].clone(), VOCABULARY), seed, **loop)


def wavenet(seed: int, **loop: Any) -> Task:
    """Dilated causal convolutions with gates, and skip connections to the output (van den Oord et al., 2016)."""
    torch.manual_seed(seed)
    tokens = sentences()
    model = WaveNet(24)

    def logits(rows: Tensor | slice) -> Tensor:
        return model(tokens[rows, :-1]).flatten(0, 1)

    def metric() -> float:
        return (logits(slice(0, 128)).argmax(1) == tokens[:128, 1:].flatten()).double().mean().item()

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(logits(rows), tokens[rows, 1:].flatten())

    trivial = tokens.flatten().bincount().max().item() / tokens.numel()
    return run(model, seed, Loop(**loop), loss, metric, examples=len(tokens), trivial=trivial)


class WaveNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(3))
        self.adds = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(width, VOCABULARY, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).transpose(1, 2)
        skip: Tensor | float = 0.0
        for i, (gate, add) in enumerate(zip(self.gates, self.adds)):
            values, opening = gate(F.pad(x, (2**i, 0))).chunk(2, dim=1)
            change = add(values.tanh() * opening.sigmoid())
            x, skip = x + change, skip + change
        return self.head(skip).transpose(1, 2)


def siren(seed: int, *, frequency: float = 20.0, **loop: Any) -> Task:
    """A digit's brightness from its coordinates, with sines for activations (Sitzmann et al., 2020)."""
    torch.manual_seed(seed)
    grid = torch.linspace(-1, 1, 32)
    x = torch.cartesian_prod(grid, grid)
    digit = packaged("digits", raw=True).x[0].view(1, 1, 8, 8)
    y = standardised(F.interpolate(digit, (32, 32), mode="bilinear").view(-1, 1))
    model = nn.Sequential(Sine(2, 48, frequency, first=True), *(Sine(48, 48, frequency) for _ in range(2)))
    model.append(nn.Linear(48, 1))
    nn.init.uniform_(model[-1].weight, *_within(math.sqrt(6 / 48) / frequency))
    return supervised(model, Data(x, y, 1), seed, **loop)


class Sine(nn.Module):
    def __init__(self, inputs: int, outputs: int, frequency: float, first: bool = False) -> None:
        super().__init__()
        self.linear, self.frequency = nn.Linear(inputs, outputs), frequency
        nn.init.uniform_(self.linear.weight, *_within(1 / inputs if first else math.sqrt(6 / inputs) / frequency))

    def forward(self, x: Tensor) -> Tensor:
        return (self.frequency * self.linear(x)).sin()


def physics_informed(seed: int, **loop: Any) -> Task:
    """u'' = -pi^2 sin(pi x), u = 0 at both ends, by the equation's own residual (Raissi et al., 2019); R^2 of u."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    x = torch.linspace(-1, 1, 128)[:, None]
    ends = torch.tensor([[-1.0], [1.0]])

    def loss(rows: Tensor) -> Tensor:
        at = x[rows].requires_grad_()
        slope = torch.autograd.grad(model(at).sum(), at, create_graph=True)[0]
        curvature = torch.autograd.grad(slope.sum(), at, create_graph=True)[0]
        residual = curvature + math.pi**2 * (math.pi * at).sin()
        return residual.square().mean() + 100 * model(ends).square().mean()

    def metric() -> float:
        return r_squared(model(x), (math.pi * x).sin())

    return run(model, seed, Loop(**loop), loss, metric, examples=len(x))


def deep_sets(seed: int, **loop: Any) -> Task:
    """The largest difference within a set of numbers, from a sum over its elements (Zaheer et al., 2017)."""
    torch.manual_seed(seed)
    x = torch.randn(1024, 8, 1, generator=torch.Generator().manual_seed(0))
    y = standardised(x.amax(1) - x.amin(1))
    return supervised(DeepSets(48), Data(x, y, 1), seed, **loop)


class DeepSets(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.all = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.all(self.each(x).mean(1))


def sentiment(seed: int, **loop: Any) -> Task:
    """Keras's IMDB example: an embedding, an LSTM, one sigmoid unit; is a good word or a bad one more frequent?"""
    torch.manual_seed(seed)
    words = torch.randint(200, (1024, LENGTH), generator=torch.Generator().manual_seed(0))
    good = (words % 2).float().mean(1) > 0.5
    return supervised(Sentiment(), Data(words, good.long(), 2), seed, **loop, loss="bce")


class Sentiment(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(200, width), nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(words))[0][:, -1])


def _images() -> Data:
    digits = packaged("digits")
    return Data(digits.x.view(-1, 1, 8, 8), digits.y, digits.outputs)


def _within(limit: float) -> tuple[float, float]:
    return -limit, limit
