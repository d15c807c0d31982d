"""Recurrent layers along time: each step of the hidden state against closed forms (Pascanu et al. 2013)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch.profile import TimeSteps
from tests.theory.networks import BATCH, WIDTH, Last, Loop, draw, profile_of
from tests.theory.oracle import SIGMOID, TANH, gaussian_mean, layer_gains

STEPS = 20


def time_steps(model: nn.Module, steps: int = STEPS) -> TimeSteps:
    found, *_ = profile_of(model, torch.randn(steps, BATCH, WIDTH)).time_steps
    return found


def expected(sigma_w: float, sigma_u: float) -> list[float]:
    """Of each time step, the last first; before the first there is no hidden state for a gradient to go to."""
    return layer_gains(TANH, sigma_w, sigma_u, sigma_u**2, STEPS)[:-1]


@pytest.mark.parametrize("sigma_w", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("module", ["RNN", "RNNCell"])
def test_each_time_step_passes_what_theory_says(module: str, sigma_w: float) -> None:
    """The mean of two initialisations, as for layers."""
    torch.manual_seed(0)
    gains = []
    for _ in range(2):
        cell = getattr(nn, module)(WIDTH, WIDTH)
        draw(cell, sigma_w, 0.5)
        found = time_steps(Last(cell) if module == "RNN" else Loop(cell))
        gains.append(found.gains)
        assert found.gain_per_step == pytest.approx(math.exp(found.log_gain / (STEPS - 1)))
    assert np.mean(gains, axis=0) == pytest.approx(expected(sigma_w, 0.5), rel=0.03)


def test_a_loss_at_every_step_hides_vanishing_from_norms_and_not_from_gains() -> None:
    torch.manual_seed(0)
    cell = nn.RNN(WIDTH, WIDTH)
    draw(cell, 0.5, 0.5)
    found = time_steps(Last(cell, every=True))
    assert found.gains == pytest.approx(expected(0.5, 0.5), rel=0.03)
    assert found.grad_norm[-1] / found.grad_norm[0] > 0.9  # as if nothing were wrong


def test_a_hidden_state_of_one_number() -> None:
    """By hand: h = tanh(w h + u x) passes (w (1 - h^2))^2."""
    cell = nn.RNN(1, 1, bias=False)
    w, u = 0.9, 0.7
    nn.init.constant_(cell.weight_hh_l0, w)
    nn.init.constant_(cell.weight_ih_l0, u)
    x = [0.5, -1.0, 2.0, 0.1, 0.3]
    h, gains = 0.0, []
    for value in x:
        h = math.tanh(w * h + u * value)
        gains.append((w * (1 - h**2)) ** 2)
    (found,) = profile_of(Last(cell), torch.tensor(x).view(-1, 1, 1)).time_steps
    assert found.gains == pytest.approx(gains[:0:-1], rel=1e-4)


def test_the_spectral_radius_is_not_what_a_gradient_sees() -> None:
    """A shift has no eigenvalue but 0, and passes a gradient whole, until it runs out of the last place."""
    cell = nn.RNN(1, 8, bias=False, nonlinearity="relu")
    with torch.no_grad():
        cell.weight_hh_l0.copy_(torch.diag(torch.ones(7), 1))
        cell.weight_ih_l0.fill_(1.0)
    model = Last(cell)
    with torch.no_grad():
        assert np.abs(np.linalg.eigvals(cell.weight_hh_l0.numpy())).max() == 0
    with gw.probe(model) as profile:
        model(torch.ones(6, 1, 1))[..., 0].sum().backward()
    assert profile.time_steps[0].gains == pytest.approx([1.0] * 5, rel=1e-5)


def test_relu_with_the_identity_remembers() -> None:
    """Le et al. 2015: all hidden units are positive, so that every step passes everything."""
    cell = nn.RNN(WIDTH, WIDTH, nonlinearity="relu", bias=False)
    nn.init.eye_(cell.weight_hh_l0)
    nn.init.constant_(cell.weight_ih_l0, 1e-3)
    (found,) = profile_of(Last(cell), torch.rand(STEPS, BATCH, WIDTH)).time_steps
    assert found.gains == pytest.approx([1.0] * (STEPS - 1), rel=1e-4)


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.parametrize("forget", [0.0, 1.0, 3.0])
def test_an_lstms_cell_passes_its_forget_gate(forget: float) -> None:
    """E[f^2] of a gate sigmoid(forget + z): without recurrent weights there is no other way.

    Of a few steps: each unit has a gradient of its own, and after many steps that of a few is nearly all.
    """
    steps = 8
    torch.manual_seed(0)
    cell = nn.LSTM(WIDTH, WIDTH)
    draw(cell, 0.0, 1.0)
    with torch.no_grad():
        cell.bias_ih_l0[WIDTH : 2 * WIDTH] = forget
    with torch.backends.mkldnn.flags(enabled=False):  # else one operation for all steps
        paths = {t.path: t for t in profile_of(Last(cell), torch.randn(steps, 4 * BATCH, WIDTH)).time_steps}
    passed = gaussian_mean(lambda z: SIGMOID.value(z + forget) ** 2)
    # The last gate made the state that the gradient comes to through tanh, so that the two are related.
    assert paths["cell"].gains[0] == pytest.approx(passed, rel=0.1)
    assert paths["cell"].gains[1:] == pytest.approx([passed] * (steps - 2), rel=0.03)
