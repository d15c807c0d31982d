"""Towers: which modules of a network no data flows between, as a probed step shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.probing import Probe
from gradwatch.towers import tower_of
from tests.tensors import normal


class Two(nn.Module):
    """A policy and its value, with layers of their own but for a trunk that they may share."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 4) if shared else nn.Identity()
        self.policy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        self.value = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.policy(x), self.value(x)


def towers(model: nn.Module, x: Tensor) -> tuple[tuple[str, ...], ...]:
    probe = Probe(model)
    probe.arm()
    outputs = model(x)
    sum(output.square().sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
    profile = probe.take()
    assert profile is not None
    return profile.towers


@pytest.mark.parametrize("with_gradient", [False, True])
def test_two_networks_that_are_given_the_same(with_gradient: bool) -> None:
    found = towers(Two(), torch.ones(5, 4, requires_grad=with_gradient))
    assert [{name.partition(".")[0] for name in names} for names in found] == [{"policy"}, {"value"}]
    layers = ["trunk", "policy.0", "policy.2", "value.0.weight", "value.0.bias", "value.4"]
    assert tower_of(layers, found).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    "model",
    [
        Two(shared=True),
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
        nn.Bilinear(4, 4, 2),
        nn.GRU(4, 4),
    ],
)
def test_one_network(model: nn.Module) -> None:
    given = (torch.ones(5, 4),) * (2 if isinstance(model, nn.Bilinear) else 1)
    probe = Probe(model)
    probe.arm()
    outputs = model(*given)
    sum(output.sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
    profile = probe.take()
    assert profile is not None
    assert profile.towers == ()
    assert tower_of(["a", "b"], profile.towers).tolist() == [0, 0]


def train(model: Two, scale: float) -> gw.Monitor:
    """A classification, and beside it the regression of values a hundred times as large."""
    torch.manual_seed(0)
    x = normal(256, 4)
    labels, values = (x[:, 0] > 0).long(), scale * x[:, 1:2]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(250):
            policy, value = model(x)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(policy, labels) + nn.functional.mse_loss(value, values)
            loss.backward()
            optimizer.step()
    return monitor


def test_a_network_is_not_behind_one_that_is_registered_after_it() -> None:
    """The policy's gradient is a thousandth of the value's, and as it should be."""
    torch.manual_seed(0)
    monitor = train(Two(), scale=300.0)
    assert "vanishing" not in {a.rule for a in monitor.alerts}
    norms = monitor.history.grad_norm[0]
    assert norms[:3].max() < 3e-3 * norms[3:].max()
