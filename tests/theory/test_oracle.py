"""The oracle itself: against closed forms, and against figures that an adaptive quadrature found."""

from __future__ import annotations

import math

import pytest

from tests.theory.oracle import (
    ERF,
    GELU,
    RELU,
    SELU,
    SIGMOID,
    SILU,
    TANH,
    Activation,
    batch_norm_chi,
    chi,
    critical,
    fixed_point,
    gaussian_mean,
    layer_norm_chi,
    mean_square,
    mean_square_slope,
)

VARIANCES = [1e-6, 0.1, 1.0, 7.3, 40.0]

GOLDEN = [
    # activation, sigma_w, sigma_b, q*, chi_1: scipy's adaptive quad, split at 0
    (TANH, 1.0, 0.3, 0.276299, 0.700258),
    (TANH, 1.3, 0.3, 0.607047, 0.939807),
    (TANH, 1.76, 0.05, 1.423591, 1.249858),
    (TANH, 2.5, 0.3, 4.079124, 1.585225),
    (ERF, 1.0, 0.3, 0.369353, 0.808930),
    (ERF, 2.0, 0.1, 2.524895, 1.528681),
    (SIGMOID, 1.0, 0.0, 0.264687, 0.055721),
    (SIGMOID, 4.0, 0.0, 5.855404, 0.398879),
    (SIGMOID, 8.0, 0.0, 27.382523, 0.794823),
    (SELU, 1.0, 0.0, 1.0, 1.071575),
]


@pytest.mark.parametrize(("power", "moment"), [(0, 1), (2, 1), (4, 3), (6, 15), (8, 105), (3, 0)])
def test_moments_of_the_normal_distribution(power: int, moment: float) -> None:
    assert gaussian_mean(lambda x: x**power) == pytest.approx(moment, abs=1e-12)


def test_half_of_a_normal_distribution_is_positive() -> None:
    assert gaussian_mean(RELU.slope) == pytest.approx(0.5, abs=1e-13)  # an odd number of nodes puts one on the kink


@pytest.mark.parametrize("q", VARIANCES)
def test_relu_has_the_kernel_of_cho_and_saul(q: float) -> None:
    assert mean_square(RELU, q) == pytest.approx(q / 2, rel=1e-13)
    assert mean_square_slope(RELU, q) == pytest.approx(1 / 2, rel=1e-13)


@pytest.mark.parametrize("q", VARIANCES)
def test_erf_has_the_kernel_of_williams(q: float) -> None:
    assert mean_square(ERF, q) == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-10)
    assert mean_square_slope(ERF, q) == pytest.approx(4 / (math.pi * math.sqrt(1 + 4 * q)), rel=1e-10)


def test_selu_keeps_mean_and_variance_as_it_was_made_to() -> None:
    assert gaussian_mean(SELU.value) == pytest.approx(0, abs=1e-7)  # Klambauer et al. 2017, theorem 1
    assert mean_square(SELU, 1.0) == pytest.approx(1, abs=1e-7)
    below_minus_2 = math.erfc(math.sqrt(2)) / 2
    closed = 1.0507009873554805**2 * (1 / 2 + 1.6732632423543772**2 * math.exp(2) * below_minus_2)
    assert mean_square_slope(SELU, 1.0) == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("activation", [TANH, ERF, SIGMOID, GELU, SILU, SELU], ids=lambda a: a.name)
def test_slopes_belong_to_their_functions(activation: Activation) -> None:
    """By Stein's lemma, E[z phi(s z)] = s E[phi'(s z)]."""
    for s in (0.3, 1.0, 3.0):
        left = gaussian_mean(lambda z, s=s: z * activation.value(s * z))  # type: ignore[misc]
        assert left == pytest.approx(s * gaussian_mean(activation.slope, s**2), rel=1e-9)


@pytest.mark.parametrize(("activation", "sigma_w", "sigma_b", "q", "expected"), GOLDEN)
def test_golden_table(activation: Activation, sigma_w: float, sigma_b: float, q: float, expected: float) -> None:
    assert fixed_point(activation, sigma_w, sigma_b) == pytest.approx(q, abs=1e-6)
    assert chi(activation, sigma_w, sigma_b) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sigma_w", [0.5, 1.0, math.sqrt(2), 2.0])
def test_relu_at_every_variance(sigma_w: float) -> None:
    """He et al. 2015: half of what the weights make of it, so sigma_w^2 = 2."""
    assert chi(RELU, sigma_w, 0.0) == pytest.approx(sigma_w**2 / 2, rel=1e-12)


def test_relu_with_biases_has_its_fixed_point_in_closed_form() -> None:
    assert fixed_point(RELU, 1.0, 0.3) == pytest.approx(0.3**2 / (1 - 1 / 2), rel=1e-12)


def test_a_variance_that_dies_out_leaves_the_slope_at_zero() -> None:
    """Glorot and Bengio 2010: in the linear regime of tanh a layer passes fan_in Var[W]."""
    assert chi(TANH, 0.8, 0.0) == pytest.approx(0.64, rel=1e-9)


@pytest.mark.parametrize(("activation", "expected"), [(TANH, 1.3956), (ERF, 1.2337)], ids=["tanh", "erf"])
def test_critical_weights(activation: Activation, expected: float) -> None:
    assert critical(activation, sigma_b=0.3) == pytest.approx(expected, abs=1e-4)


def test_the_critical_point_that_schoenholz_et_al_train_at() -> None:
    assert chi(TANH, math.sqrt(1.76), math.sqrt(0.05)) == pytest.approx(1, abs=5e-4)


@pytest.mark.parametrize(
    ("activation", "layer_norm", "batch_norm"),
    [
        (TANH, 1.177807, 1.177807),
        (RELU, 1.0, math.pi / (math.pi - 1)),
        (GELU, 1.072032, 1.318845),
        (SILU, 1.066634, 1.212081),
        (ERF, 1.225700, 1.225700),
    ],
    ids=lambda a: getattr(a, "name", ""),
)
def test_normalised_layers(activation: Activation, layer_norm: float, batch_norm: float) -> None:
    """An odd function has no mean, so that both are the same."""
    assert layer_norm_chi(activation) == pytest.approx(layer_norm, abs=1e-6)
    assert batch_norm_chi(activation) == pytest.approx(batch_norm, abs=1e-6)
