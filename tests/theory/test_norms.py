"""Normalisation layers, alone and between layers, against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradwatch.profile import BackwardProfile
from tests.theory.networks import FUNCTIONS, Function, inside, linear, profile_of
from tests.theory.oracle import GELU, RELU, TANH, Activation, batch_norm_chi, layer_norm_chi

WIDTH = 500
LAYERS, INSIDE = 24, range(6, 23)


def scattered(batch: int, width: int = WIDTH) -> Tensor:
    """Of mean 2 and standard deviation 3."""
    torch.manual_seed(0)
    return (2 + 3 * torch.randn(batch, width)).requires_grad_()


def gain(norm: nn.Module, x: Tensor) -> float:
    profile = profile_of(norm, x)
    assert {segment.kind for segment in profile.segments} == {"norm"}
    return profile.factor("norm") ** len(profile.segments)


# A norm's Jacobian is 1 / std times a projection: it takes away the directions in which the output cannot move.


@pytest.mark.parametrize("width", [16, 64, 500])
def test_layer_norm_divides_by_the_standard_deviation(width: int) -> None:
    x = scattered(32_000 // width, width)
    expected = (1 / x.var(-1, correction=0)).mean().item() * (1 - 2 / width)
    assert gain(nn.LayerNorm(width), x) == pytest.approx(expected, rel=0.03)


def test_its_weights_multiply() -> None:
    norm = nn.LayerNorm(WIDTH)
    nn.init.constant_(norm.weight, 2.0)
    assert gain(norm, scattered(64)) == pytest.approx(4 / 9, rel=0.03)


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    x = scattered(64)
    expected = (1 / x.square().mean(-1)).mean().item() * (1 - 1 / WIDTH)
    assert gain(nn.RMSNorm(WIDTH), x) == pytest.approx(expected, rel=0.03)


def test_group_norm_does_within_each_group() -> None:
    x = scattered(64)
    expected = (1 / x.view(64, 10, 50).var(-1, correction=0)).mean().item() * (1 - 2 / 50)
    assert gain(nn.GroupNorm(10, WIDTH), x) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("batch", [16, 256])
def test_batch_norm_divides_by_the_standard_deviation_over_the_batch(batch: int) -> None:
    x = scattered(batch)
    expected = (1 / x.var(0, correction=0)).mean().item() * (1 - 2 / batch)
    assert gain(nn.BatchNorm1d(WIDTH), x) == pytest.approx(expected, rel=0.03)


def test_batch_norm_in_evaluation_is_a_constant_factor() -> None:
    norm = nn.BatchNorm1d(WIDTH, eps=0).eval()
    nn.init.constant_(norm.running_var, 4.0)
    assert gain(norm, scattered(64)) == pytest.approx(1 / 4, rel=1e-5)


def between(norm: type[nn.Module], activation: Activation, sigma_w: float, batch: int) -> BackwardProfile:
    """The inner layers of a network with a norm between weights and activation."""
    torch.manual_seed(0)
    layers = ((linear(WIDTH, WIDTH, sigma_w), norm(WIDTH), Function(FUNCTIONS[activation.name])) for _ in range(LAYERS))
    model = nn.Sequential(*(module for layer in layers for module in layer))
    return inside(profile_of(model, torch.randn(batch, WIDTH)), INSIDE, modules=3)


@pytest.mark.parametrize("sigma_w", [1.0, 3.0])
@pytest.mark.parametrize("activation", [RELU, TANH, GELU], ids=lambda a: a.name)
def test_between_layers_layer_norm_makes_the_size_of_weights_irrelevant(activation: Activation, sigma_w: float) -> None:
    profile = between(nn.LayerNorm, activation, sigma_w, batch=64)
    assert profile.gain_per_layer == pytest.approx(layer_norm_chi(activation), rel=0.03)
    assert profile.factor("weight") == pytest.approx(sigma_w**2, rel=0.03)


@pytest.mark.parametrize("activation", [RELU, TANH, GELU], ids=lambda a: a.name)
def test_between_layers_batch_norm_makes_gradients_explode(activation: Activation) -> None:
    """Yang et al. 2019: without skip connections."""
    profile = between(nn.BatchNorm1d, activation, 1.0, batch=256)
    assert profile.gain_per_layer == pytest.approx(batch_norm_chi(activation), rel=0.03)
