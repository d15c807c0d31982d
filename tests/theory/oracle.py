"""What theory predicts of random networks: quadrature in float64, which shares nothing with what it is compared to.

A wide layer ``h = W phi(h_before) + b`` with ``W ~ N(0, sigma_w^2 / fan_in)`` and ``b ~ N(0, sigma_b^2)`` has Gaussian
pre-activations. Their variance follows a map from layer to layer (Poole et al. 2016, equation 3),

    q -> sigma_w^2 E[phi(sqrt(q) z)^2] + sigma_b^2,        z ~ N(0, 1)

and at its fixed point q* a layer multiplies the squared norm of a gradient by (Schoenholz et al. 2017, equation 7)

    chi_1 = sigma_w^2 E[phi'(sqrt(q*) z)^2].

The first factor is the weights', the second the activation's. Glorot and Bengio 2010 have chi_1 for phi' = 1 and He et
al. 2015 for ReLU; what is the same along time instead of depth is in Pascanu et al. 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

_REACH = 12.0
"""Beyond so many standard deviations lies a probability below 1e-32."""

_PANELS, _NODES = 24, 16
"""On each side of 0, which is the edge of two panels: a rule with a node on ReLU's kink is off by 7% of E[relu'^2]."""

_ROUNDS = 10_000
"""Of the variance map: at a critical point it gets to its fixed point no faster than 1/n."""

_SMALLEST, _LARGEST = 1e-12, 1e12
"""Variances on their way to zero and to infinity, where the slopes have reached their limits."""

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Activation:
    """An activation function and its derivative."""

    name: str
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


def _density(x: Array) -> Array:
    return np.asarray(np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))


def _below(x: Array) -> Array:
    return np.asarray((1 + _erf(x / math.sqrt(2))) / 2)


_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, equation 14

TANH = Activation("tanh", np.tanh, lambda x: 1 - np.tanh(x) ** 2)
ERF = Activation("erf", _erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-(x**2)))
RELU = Activation("relu", lambda x: np.maximum(x, 0), lambda x: np.heaviside(x, 0))
SIGMOID = Activation("sigmoid", _sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x))
GELU = Activation("gelu", lambda x: x * _below(x), lambda x: _below(x) + x * _density(x))
SILU = Activation("silu", lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * _sigmoid(-x)))
SELU = Activation(
    "selu",
    lambda x: _SCALE * np.where(x > 0, x, _ALPHA * np.expm1(np.minimum(x, 0))),
    lambda x: _SCALE * np.where(x > 0, 1, _ALPHA * np.exp(np.minimum(x, 0))),
)


def _rule() -> tuple[Array, Array]:
    """Nodes and weights: Gauss-Legendre on panels of half a standard deviation."""
    at, weights = np.polynomial.legendre.leggauss(_NODES)
    edges = np.linspace(0, _REACH, _PANELS + 1)
    half = _REACH / _PANELS / 2
    positive = (edges[:-1, None] + half * (1 + at)).ravel()
    nodes = np.concatenate([-positive[::-1], positive])
    symmetric = np.tile(half * weights, _PANELS)
    return nodes, np.concatenate([symmetric[::-1], symmetric]) * _density(nodes)


_AT, _WEIGHTS = _rule()


def gaussian_mean(function: Callable[[Array], Array], variance: float = 1.0) -> float:
    """E[function(sqrt(variance) z)].

    >>> round(gaussian_mean(lambda x: x**4), 12)
    3.0
    """
    return float(_WEIGHTS @ function(math.sqrt(variance) * _AT))


def mean_square(activation: Activation, q: float) -> float:
    """E[phi(sqrt(q) z)^2]."""
    return gaussian_mean(lambda x: activation.value(x) ** 2, q)


def mean_square_slope(activation: Activation, q: float) -> float:
    """E[phi'(sqrt(q) z)^2]: what an activation passes of a squared gradient that has nothing to do with its input."""
    return gaussian_mean(lambda x: activation.slope(x) ** 2, q)


def fixed_point(activation: Activation, sigma_w: float, sigma_b: float) -> float:
    """q*: the variance of pre-activations at depth. Where every variance is a fixed point it is 1."""
    q = 1.0
    for _ in range(_ROUNDS):
        before, q = q, sigma_w**2 * mean_square(activation, q) + sigma_b**2
        if abs(q - before) <= 1e-14 * q or not _SMALLEST < q < _LARGEST:
            break
    return q


def chi(activation: Activation, sigma_w: float, sigma_b: float) -> float:
    """chi_1: the squared gain of a layer at depth."""
    return sigma_w**2 * mean_square_slope(activation, fixed_point(activation, sigma_w, sigma_b))


def layer_gains(activation: Activation, sigma_w: float, sigma_b: float, q: float, layers: int) -> list[float]:
    """The squared gains of layers that are not at the fixed point, the last first as a gradient meets them.

    Time steps of ``h = phi(W h_before + U x)`` are such layers, where U x takes the place of the bias.

    Args:
        q: variance of the first layer's pre-activations.
        layers: how many there are.
    """
    gains = []
    for _ in range(layers):
        gains.append(sigma_w**2 * mean_square_slope(activation, q))
        q = sigma_w**2 * mean_square(activation, q) + sigma_b**2
    return gains[::-1]


def critical(activation: Activation, sigma_b: float) -> float:
    """The sigma_w at which chi_1 is 1, by bisection: gradients vanish below it and explode above."""
    low, high = 0.5, 4.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if chi(activation, middle, sigma_b) < 1 else (low, middle)
    return (low + high) / 2


def layer_norm_chi(activation: Activation) -> float:
    """The squared gain of linear, LayerNorm, activation: the norm divides by what the weights multiply with.

    Pre-activations have variance 1 after it and sigma_w^2 E[phi(z)^2] before it, so that it passes 1 / (sigma_w^2
    E[phi(z)^2]) of the squared gradient. Times sigma_w^2 and E[phi'(z)^2], sigma_w drops out.
    """
    return mean_square_slope(activation, 1.0) / mean_square(activation, 1.0)


def batch_norm_chi(activation: Activation) -> float:
    """The squared gain of linear, BatchNorm, activation, of a large batch (Yang et al. 2019, for ReLU pi / (pi - 1)).

    It divides by the standard deviation over the batch. Two samples have uncorrelated pre-activations after it, so that
    the part of E[phi^2] that all samples share, E[phi]^2, does not count.
    """
    return mean_square_slope(activation, 1.0) / (mean_square(activation, 1.0) - gaussian_mean(activation.value) ** 2)
