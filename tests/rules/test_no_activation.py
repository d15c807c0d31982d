from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import NoActivation
from tests.histories import layers, stats

RULE = NoActivation()


def check(seen: list[list[bool] | None], rule: NoActivation | None = None) -> list[gw.Alert]:
    rule, history = rule or NoActivation(), gw.History()
    found: list[gw.Alert] = []
    for step, stacked in enumerate(seen):
        told = {} if stacked is None else {"stacked": np.array(stacked)}
        history.append(stats(step, layers([1.0, 1.0, 1.0]), **told))
        found += rule.check(history)
    return found


def test_one_probed_step_tells_of_all_layers() -> None:
    (alert,) = check([None, [True, True, False], None, None, [True, True, False]])
    assert (alert.step, alert.layers, alert.severity) == (1, ("fc0", "fc1"), Severity.WARNING)
    assert alert.message == f"fc1, fc0: {RULE.describe(0.0, 0.0)}"


def test_nothing_is_told_where_something_bends_or_nobody_looked() -> None:
    assert check([None, [False] * 3, None]) == []
    assert check([None] * 3) == []


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    rule, history, found = NoActivation(), gw.History(), list[gw.Alert]()
    for step, norms in enumerate([[1.0, 1.0], [float("nan"), float("inf")], [0.0, None], [1.0, 1.0]]):
        told = {"stacked": np.array([True, False])} if step == 1 else {}
        history.append(stats(step, layers(norms), **told))
        found += rule.check(history)
    assert [(a.step, a.layer) for a in found] == [(1, "fc0")]


def test_it_is_remembered_in_a_checkpoint() -> None:
    rule = NoActivation()
    assert len(check([None, [True, True, True]], rule)) == 1
    again = NoActivation()
    again.load_state_dict(rule.state_dict())
    assert again.open_layers == ("fc0", "fc1", "fc2")


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name, rule, history, found = "x" * 300, NoActivation(), gw.History(), list[gw.Alert]()
    for step in range(RULE.patience):
        history.append(stats(step, {name: 1.0, "out": 1.0}, stacked=np.array([True, False])))
        found += rule.check(history)
    assert [(a.layer, a.message) for a in found] == [(name, f"{name}: {RULE.describe(0.0, 0.0)}")]


def train(task: Literal["xor", "line"], between: nn.Module, granularity: str = "layer") -> gw.Monitor:
    """What a line separates, and what none does."""
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long() if task == "xor" else x[:, :2].argmax(1)
    model = nn.Sequential(nn.Linear(4, 16), between, nn.Linear(16, 16), between, nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=(), granularity=granularity) as monitor:
        for _ in range(320):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return monitor


def test_a_linear_network_is_told_so_and_is_an_error_where_it_learns_nothing() -> None:
    monitor = train("xor", nn.Identity())
    assert [(a.rule, a.layers, a.severity) for a in monitor.alerts if not a.follows] == [
        ("no_activation", ("0", "2"), Severity.WARNING),
        ("no_activation", ("0", "2"), Severity.ERROR),
    ]
    assert monitor.alerts[1].message.endswith("of the outputs' error is left")
    found = monitor.report().diagnoses[0]
    assert (found.cause, found.layers, found.change) == ("no_activation", ("0", "2"), "activation")
    assert found.remedy == "put an activation, such as torch.nn.ReLU, behind layers 0 and 2"
    assert train("xor", nn.ReLU()).alerts == []


class BackToFront(nn.Module):
    """A trunk with two heads, registered in another order than they are called in; later with an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.deviation, self.trunk = nn.Linear(8, 2), nn.Linear(8, 2), nn.Linear(4, 8)
        self.between: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.between(self.trunk(x))
        return self.mean(h), self.deviation(h)


def test_the_layer_that_others_follow_is_named_until_something_bends() -> None:
    torch.manual_seed(0)
    model = BackToFront()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=(), probe_every_n_steps=10) as monitor:
        for step in range(30):
            if step == 15:
                assert [a.layer for a in monitor.alerts] == ["trunk"]
                assert monitor.report().diagnoses[0].remedy.endswith("behind trunk")
                model.between = nn.Tanh()
            optimizer.zero_grad()
            sum(out.square().mean() for out in model(torch.randn(16, 4))).backward()
            optimizer.step()
    assert monitor.report().verdict.startswith("healthy now")


def test_by_parameter_it_is_told_of_the_weights() -> None:
    assert train("line", nn.Identity(), "parameter").alerts[0].layers == ("0.weight", "2.weight")


@pytest.mark.parametrize(("between", "alerts"), [(nn.Identity(), 1), (nn.Tanh(), 0)])
def test_it_is_a_warning_where_a_line_will_do(between: nn.Module, alerts: int) -> None:
    assert [a.severity for a in train("line", between).alerts] == [Severity.WARNING] * alerts
