from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch.diagnosis import FlatOutput
from gradwatch.profile import BackwardProfile, Segment

LAST = Segment("1", "weight", "Addmm", 1.0, 1.0)


class Positive(nn.Module):
    """A regression whose outputs may not be below zero."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        nn.init.constant_(self.body[2].bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x))


def report(model: nn.Module, loss: Callable[[Tensor], Tensor]) -> gw.Report:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(60):
            optimizer.zero_grad()
            loss(model(torch.randn(16, 4))).backward()
            optimizer.step()
        return monitor.report()


@pytest.mark.parametrize(
    ("bias", "loss", "remedy"),
    [
        (-50.0, lambda y: (y + 1).square().mean(), "leave Relu off the model's output: it is flat there"),
        (50.0, lambda y: (y * 0).sum(), "look at the loss: nothing in it depends on the model's output"),
        (50.0, lambda y: y.clamp(0, 1).sum(), "look at the loss: nothing in it depends on the model's output"),
    ],
)
def test_no_gradient_leaves_the_loss(bias: float, loss: Callable[[Tensor], Tensor], remedy: str) -> None:
    found = report(Positive(bias), loss)
    assert {(a.rule, a.severity) for a in found.alerts} <= {("dead", s) for s in gw.Severity}
    assert [d.cause for d in found.diagnoses] == ["flat_output"]
    assert found.diagnoses[0].remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("tail", "loss", "remedy"),
    [
        (nn.Softmax(1), lambda p: (p - 0.5).square().mean(), "of one output a softmax is always 1: use a sigmoid"),
        (
            nn.Identity(),
            lambda z: nn.functional.cross_entropy(z, torch.zeros(16, dtype=torch.long)),
            "look at the loss: nothing in it depends on the model's output, which may be rounded, compared, clamped or "
            "multiplied by zero on the way; a cross entropy needs one output per class",
        ),
    ],
)
def test_one_output_is_no_probability(tail: nn.Module, loss: Callable[[Tensor], Tensor], remedy: str) -> None:
    torch.manual_seed(0)
    found = report(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), tail), loss)
    assert found.diagnoses[0].remedy.startswith(remedy)


def test_a_margin_that_is_kept_asks_for_nothing_more() -> None:
    """Its gradient was there before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer, x = torch.optim.SGD(model.parameters(), lr=0.5), torch.randn(16, 4)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(300):
            optimizer.zero_grad()
            nn.functional.multi_margin_loss(model(x), x[:, :3].argmax(1)).backward()
            optimizer.step()
        found = monitor.report()
    assert found.alerts == ()  # looks have told so
    dead = gw.Alert(299, "dead", None, gw.Severity.WARNING, 0.0, 0.0, "", layers=("0", "2"))
    told = FlatOutput().explain(monitor.history, BackwardProfile((), step=299), [dead])
    assert told is not None
    assert told.remedy.startswith("look at the loss: a margin that is kept asks for nothing more")


@pytest.mark.parametrize(
    ("probe", "what"),
    [
        (BackwardProfile((Segment("2", "activation", "Sigmoid", 1e-9, 1.0), LAST)), "Sigmoid"),
        (BackwardProfile((LAST,)), "the activation"),
        (None, "the activation"),
    ],
)
def test_what_passes_nothing_behind_the_last_layer(probe: BackwardProfile | None, what: str) -> None:
    told = gw.Alert(9, "flat_output", "1", gw.Severity.ERROR, 1e-6, 0.01, "")
    found = FlatOutput().explain(gw.History(), probe, [told])
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("flat_output", ("1",), "activation")
    assert found.remedy.startswith(f"leave {what}")
    assert "passes 1e-06 of the gradient" in found.evidence[0]


@pytest.mark.parametrize(("follows", "told"), [("saturated", True), ("exploding", False)])
def test_layers_that_are_saturated_kill_none_behind_them(follows: str, told: bool) -> None:
    softmax = Segment("3", "activation", "Softmax", 0.0, 1.0)
    alert = gw.Alert(52, "dead", "fc", gw.Severity.ERROR, 0.0, 0.0, "", follows=follows)
    history = gw.History.from_grad_norms(fc=[0.0])
    found = FlatOutput().explain(history, BackwardProfile((softmax,), step=0), [alert])
    assert (found is not None) == told


def test_dead_layers_within_are_another_cause() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1, bias=False))
    nn.init.constant_(model[0].bias, -50.0)
    assert report(model, lambda y: (y + 1).square().mean()).diagnoses[0].cause == "dead_units"
