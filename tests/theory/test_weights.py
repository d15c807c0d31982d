"""Weights by themselves, and what torch's own initialisation makes of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradwatch.profile import BackwardProfile
from tests.theory.networks import FUNCTIONS, Function, inside, linear, profile_of
from tests.theory.oracle import GELU, RELU, SIGMOID, SILU, TANH, Activation, chi

LAYERS, WIDTH = 24, 500
INSIDE = range(8, 23)

ONE_THIRD = math.sqrt(1 / 3)
"""sigma_w of torch's own initialisation, uniform between +-1 / sqrt(fan_in)."""


def test_what_widens_passes_more_to_its_input() -> None:
    """Squared gains count elements: each input reaches fan_out outputs with weights of variance sigma_w^2 / fan_in."""
    torch.manual_seed(0)
    for fan_in, fan_out in ((256, 512), (512, 256), (784, 100)):
        model = linear(fan_in, fan_out, math.sqrt(2))
        (segment,) = profile_of(model, torch.randn(256, fan_in).requires_grad_()).segments
        # the gradient has fan_out elements to begin with, and each of fan_in gets 2 * fan_out / fan_in of one's square
        assert segment.gain == pytest.approx(2.0, rel=0.02)
        assert segment.weight is not None
        assert segment.weight.isotropic == pytest.approx(segment.gain, rel=0.02)


def test_orthogonal_weights_change_nothing() -> None:
    """Saxe et al. 2014: all singular values are 1, so every gradient passes, not only the average one."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(30)))
    for layer in model:
        nn.init.orthogonal_(layer.weight)
    profile = profile_of(model, torch.randn(8, 64).requires_grad_())
    assert [segment.gain for segment in profile.segments] == pytest.approx([1.0] * 30, rel=1e-4)
    assert profile.depth_scale > 1e5


def by_default(activation: Activation) -> BackwardProfile:
    torch.manual_seed(0)
    layers = ((nn.Linear(WIDTH, WIDTH), Function(FUNCTIONS[activation.name])) for _ in range(LAYERS))
    model = nn.Sequential(*(module for layer in layers for module in layer))
    return inside(profile_of(model, torch.randn(64, WIDTH)), INSIDE)


@pytest.mark.parametrize("activation", [RELU, TANH, GELU, SILU, SIGMOID], ids=lambda a: a.name)
def test_torchs_own_initialisation_passes_a_third(activation: Activation) -> None:
    """nn.Linear draws weights and biases from U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): sigma_w^2 = 1/3."""
    profile = by_default(activation)
    assert profile.factor("weight") == pytest.approx(1 / 3, rel=0.02)
    expected = chi(activation, ONE_THIRD, ONE_THIRD / math.sqrt(WIDTH))
    assert profile.gain_per_layer == pytest.approx(expected, rel=0.03)


def test_so_do_convolutions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular") for _ in range(4)))
    profile = profile_of(model, torch.randn(8, 64, 8, 8).requires_grad_())
    assert profile.depth == 4
    assert profile.gain_per_layer == pytest.approx(1 / 3, rel=0.03)


def test_zeros_around_an_image_pass_nothing() -> None:
    """A pixel of the edge reaches fewer outputs: of 3 x 3 around 8 x 8 pixels (22 / 24)^2 of the weights are used."""
    torch.manual_seed(0)
    model = nn.Conv2d(64, 64, 3, padding=1)
    profile = profile_of(model, torch.randn(16, 64, 8, 8).requires_grad_())
    assert profile.gain_per_layer == pytest.approx((22 / 24) ** 2 / 3, rel=0.02)


def test_dropout_passes_one_over_what_it_keeps() -> None:
    torch.manual_seed(0)
    profile = profile_of(nn.Dropout(0.2), torch.randn(400, 500).requires_grad_())
    assert [segment.kind for segment in profile.segments] == ["dropout"]
    assert profile.factor("dropout") == pytest.approx(1 / 0.8, rel=0.01)
