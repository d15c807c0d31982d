"""Activations by themselves: recovered derivatives against those of calculus, and the textbook's bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradwatch.profile import Segment
from tests.theory.networks import FUNCTIONS, Function, linear, perceptron, profile_of
from tests.theory.oracle import ERF, GELU, RELU, SELU, SIGMOID, SILU, TANH, Activation, mean_square_slope

EACH = pytest.mark.parametrize("activation", [TANH, ERF, RELU, SIGMOID, GELU, SILU, SELU], ids=lambda a: a.name)

LARGEST = {"tanh": 1.0, "erf": 4 / np.pi, "relu": 1.0, "sigmoid": 1 / 16}
"""phi'^2 is nowhere larger."""


def only(model: nn.Module, x: torch.Tensor) -> Segment:
    (segment,) = profile_of(model, x.requires_grad_()).segments
    return segment


@EACH
def test_derivatives_are_those_of_calculus(activation: Activation) -> None:
    torch.manual_seed(0)
    x = 1.5 * torch.randn(20, 400)
    slopes = activation.slope(x.double().numpy())
    segment = only(Function(FUNCTIONS[activation.name]), x)
    assert segment.kind == "activation"
    assert segment.derivative is not None
    assert segment.derivative.mean_square == pytest.approx(np.mean(slopes**2), rel=1e-4)
    assert segment.derivative.zero == pytest.approx(np.mean(slopes == 0), abs=1e-3)


@EACH
def test_a_random_gradient_passes_as_their_mean_square(activation: Activation) -> None:
    torch.manual_seed(1)
    segment = only(Function(FUNCTIONS[activation.name]), torch.randn(256, 500))
    assert segment.gain == pytest.approx(mean_square_slope(activation, 1.0), rel=0.01)


@pytest.mark.parametrize("sigma_w", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("activation", [TANH, ERF, RELU, SIGMOID], ids=lambda a: a.name)
def test_the_textbook_bounds_hold_and_are_only_bounds(activation: Activation, sigma_w: float) -> None:
    """Of each factor by itself: the activation's largest slope, and the largest singular value of the weights."""
    torch.manual_seed(2)
    model = nn.Sequential(linear(60, 60, sigma_w, 0.1), Function(FUNCTIONS[activation.name]), linear(60, 60, sigma_w))
    last, middle, first = profile_of(model, torch.randn(40, 60).requires_grad_()).segments
    assert 0 < middle.gain <= LARGEST[activation.name] * (1 + 1e-5)
    for segment, layer in ((last, model[2]), (first, model[0])):
        singular = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False)
        assert segment.gain <= singular[0] ** 2 * (1 + 1e-5)
        assert segment.gain == pytest.approx(sigma_w**2, rel=0.25)  # while singular[0] ** 2 is near 4 sigma_w ** 2


def test_no_layer_gets_lost() -> None:
    segments = profile_of(perceptron(TANH, 1.3, 0.3), torch.randn(2, 500)).segments
    kinds = [segment.kind for segment in segments]
    assert kinds == ["activation", "weight"] * (len(kinds) // 2) + ["activation"] * (len(kinds) % 2)
    assert len(kinds) in (99, 100)  # the first weight's input needs no gradient
