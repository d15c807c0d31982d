"""Make the figures of docs/theory.md: small networks, one watched step each, and what theory says of them.

    python -m docs.figures

Takes a minute on a CPU and needs nothing but gradwatch.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

import gradwatch as gw
from docs.chart import Curve, chart
from gradwatch.profile import BackwardProfile
from tests.theory.networks import (
    FUNCTIONS,
    Block,
    Function,
    Last,
    at_fixed_point,
    draw,
    inside,
    linear,
    perceptron,
    plain_norm,
    profile_of,
)
from tests.theory.oracle import (
    ERF,
    RELU,
    SIGMOID,
    TANH,
    Activation,
    batch_norm_chi,
    chi,
    fixed_point,
    layer_gains,
    mean_square_slope,
)

IMAGES = Path(__file__).parent / "images"

DEPTH, WIDTH, BATCH = 30, 256, 64

STEPS = 200
"""Of the training in :func:`trained`."""

DEFAULT = math.sqrt(1 / 3)
"""sigma_w of torch's own initialisation."""


def textbook() -> str:
    """Gradients through 30 layers, for the initialisations that people meet."""
    curves = []
    for name, activation, sigma_w in (
        ("ReLU, sigma_w = 2", RELU, 2.0),
        ("ReLU, He", RELU, math.sqrt(2)),
        ("tanh, Glorot", TANH, 1.0),
        ("tanh, torch's default", TANH, DEFAULT),
        ("ReLU, torch's default", RELU, DEFAULT),
        ("sigmoid, Glorot", SIGMOID, 1.0),
    ):
        torch.manual_seed(0)
        layers = ((linear(WIDTH, WIDTH, sigma_w), Function(FUNCTIONS[activation.name])) for _ in range(DEPTH))
        profile = profile_of(nn.Sequential(*itertools.chain(*layers)), torch.randn(BATCH, WIDTH).requires_grad_())
        line = roots(products(layer_gains(activation, sigma_w, 0.0, sigma_w**2, DEPTH)))
        curves.append(Curve(name, line, roots(gains_down_to(profile, "weight"))))
    return chart(curves, "layers below the output", "gradient norm, of the output's")


def phases() -> str:
    """chi_1 against the size of the weights."""
    curves = []
    for activation, sigma_b, low, high in (
        (TANH, 0.3, 0.5, 6.0),
        (ERF, 0.3, 0.5, 6.0),
        (RELU, 0.0, 0.5, 4.0),
        (SIGMOID, 0.0, 1.0, 11.0),
    ):
        sizes = [low + i * (high - low) / 40 for i in range(41)]
        line = [(s, chi(activation, s, sigma_b)) for s in sizes]
        dots = [(s, measured(activation, s, sigma_b).gain_per_layer) for s in sizes[::5]]
        curves.append(Curve(f"{activation.name}, sigma_b = {sigma_b:g}", line, dots))
    return chart(curves, "sigma_w", "squared gain of a layer")


def factors() -> str:
    """The two factors of tanh's layers as the weights grow."""
    sizes = [0.5 + 0.25 * i for i in range(19)]
    profiles = [measured(TANH, s, 0.3) for s in sizes]
    slopes = [mean_square_slope(TANH, fixed_point(TANH, s, 0.3)) for s in sizes]
    return chart(
        [
            Curve("weights", [(s, s**2) for s in sizes], [(s, p.factor("weight")) for s, p in zip(sizes, profiles)]),
            Curve("tanh", list(zip(sizes, slopes)), [(s, p.factor("activation")) for s, p in zip(sizes, profiles)]),
            Curve(
                "a layer: their product",
                [(s, s**2 * slope) for s, slope in zip(sizes, slopes)],
                [(s, p.gain_per_layer) for s, p in zip(sizes, profiles)],
            ),
        ],
        "sigma_w",
        "squared gain",
    )


def blocks() -> str:
    """Layers of ReLU with norms and with skips."""
    count = 24
    built: dict[str, tuple[Callable[[], nn.Module], Callable[[int], float]]] = {
        "residual": (lambda: Block(1.0), lambda n: 2.0**n),
        "BatchNorm, no skip": (normalised, lambda n: batch_norm_chi(RELU) ** n),
        "LayerNorm in the branch": (
            lambda: Block(1.0, before=plain_norm()),
            lambda n: (1 + count) / (1 + count - n),
        ),
        "branch / sqrt(24)": (lambda: Block(count**-0.5), lambda n: (1 + 1 / count) ** n),
        "LayerNorm after the sum": (lambda: Block(1.0, after=plain_norm()), lambda n: 1.0),
    }
    curves = []
    for name, (build, theory) in built.items():
        torch.manual_seed(0)
        profile = profile_of(nn.Sequential(*(build() for _ in range(count))), torch.randn(256, 500).requires_grad_())
        found = gains_down_to(profile, "weight" if build is normalised else "residual")
        curves.append(Curve(name, [(n, theory(n)) for n in range(count + 1)], list(enumerate(found))))
    return chart(curves, "blocks below the output", "squared gain from the output")


def normalised() -> nn.Module:
    return nn.Sequential(linear(500, 500, 1.0), nn.BatchNorm1d(500), nn.ReLU())


def time() -> str:
    """A recurrent network that forgets, with a loss at its end and with one at every step."""
    steps, sigma_w = 20, 0.5
    gains = layer_gains(TANH, sigma_w, 0.5, 0.5**2, steps)[:-1]
    theory = list(enumerate(products(gains)))
    curves = []
    for every, where in ((True, "at every step"), (False, "at the end")):
        torch.manual_seed(0)
        cell = nn.RNN(500, 500)
        draw(cell, sigma_w, 0.5)
        (found,) = profile_of(Last(cell, every), torch.randn(steps, 64, 500)).time_steps
        norms = [(t, (n / found.grad_norm[0]) ** 2) for t, n in enumerate(found.grad_norm)]
        curves.append(Curve(f"gradient, loss {where}", dots=norms))
    curves.append(Curve("product of the steps' gains", theory, list(enumerate(products(found.gains)))))
    return chart(curves, "time steps before the last", "squared norm, of the last step's")


def trained() -> str:
    """What the weights pass before and after training, against what their size alone would tell."""
    torch.manual_seed(0)
    layers = [(linear(WIDTH, WIDTH, 1.0), nn.Tanh()) for _ in range(8)]
    model = nn.Sequential(*itertools.chain(*layers), linear(WIDTH, 10, 1.0))
    x = torch.randn(512, WIDTH)
    labels = torch.randn(WIDTH, 10).t().matmul(x.t()).argmax(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> BackwardProfile:
        optimizer.zero_grad()
        with gw.probe(model) as profile:
            nn.functional.cross_entropy(model(x), labels).backward()
        return profile

    before = step()
    for _ in range(STEPS):
        step()
        optimizer.step()
    curves = []
    for name, profile in (("at initialisation", before), (f"after {STEPS} steps", step())):
        weights = [s for s in profile.segments if s.kind == "weight" and s.layer != "16"]
        size = [(place, s.weight.isotropic) for place, s in enumerate(weights, 1) if s.weight]
        curves.append(Curve(f"{name}: measured", dots=[(place, s.gain) for place, s in enumerate(weights, 1)]))
        curves.append(Curve(f"{name}: by size", line=size, dashed=True))
    return chart(curves, "layers below the output", "squared gain of the weights")


def measured(activation: Activation, sigma_w: float, sigma_b: float) -> BackwardProfile:
    """The inner layers of a deep random network."""
    torch.manual_seed(0)
    x = at_fixed_point(activation, sigma_w, sigma_b)
    return inside(profile_of(perceptron(activation, sigma_w, sigma_b), x))


def gains_down_to(profile: BackwardProfile, kind: str) -> list[float]:
    """The squared gain from the output down to each segment of ``kind``."""
    gains = products(segment.gain for segment in profile.segments)[1:]
    return [1.0, *(gain for gain, segment in zip(gains, profile.segments) if segment.kind == kind)]


def products(gains: Iterable[float]) -> list[float]:
    """Of the first 0, 1, 2, ... of them."""
    return list(itertools.accumulate(gains, operator.mul, initial=1.0))


def roots(gains: Iterable[float]) -> list[tuple[float, float]]:
    """Ratios of norms by their place."""
    return [(place, math.sqrt(gain)) for place, gain in enumerate(gains)]


FIGURES: Sequence[Callable[[], str]] = (textbook, phases, factors, blocks, time, trained)


def main(figures: Iterable[Callable[[], str]] = FIGURES) -> None:
    torch.set_num_threads(1)
    IMAGES.mkdir(exist_ok=True)
    for figure in figures:
        path = IMAGES / f"{figure.__name__}.svg"
        path.write_text(figure(), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
