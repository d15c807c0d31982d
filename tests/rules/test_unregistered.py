from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import Unregistered
from tests.histories import stats, told_by
from tests.tensors import normal

RULE = Unregistered()


def check(numbers: list[int | None], name: str = "head") -> list[gw.Alert]:
    return told_by(Unregistered(), [stats(i, {name: 1.0}, unregistered=number) for i, number in enumerate(numbers)])


def test_it_must_last_and_begins_anew_where_an_optimizer_has_them() -> None:
    (alert,) = check([None, *[8320] * RULE.patience, None, 8320])
    assert (alert.step, alert.layer, alert.severity) == (RULE.patience, "head", Severity.WARNING)
    assert alert.message == (
        "head: the model uses 8,320 weights that are not its own parameters, and no optimizer trains them"
    )
    few = [8320] * (RULE.patience - 1)
    assert check([*few, 0, *few]) == []


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name = "x" * 300
    assert [a.message.partition(":")[0] for a in check([1] * RULE.patience, name)] == [name]


class Listed(nn.Module):
    """Hidden layers in a list, which ``parameters()`` does not know."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.hidden = kind([nn.Linear(2, 16), nn.Linear(16, 16)])
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = 0.01 * layer(x).tanh()
        return self.head(x)


def classify(kind: type, given: str = "model", beside: bool = False, frozen: bool = False) -> gw.Monitor:
    """Whether two numbers have one sign, which the last layer alone cannot tell."""
    torch.manual_seed(0)
    x = normal(256, 2)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = Listed(kind)
    hidden = [p for layer in model.hidden for p in layer.requires_grad_(not frozen).parameters()]
    known = {*model.parameters()}
    optimizer = torch.optim.Adam([*known, *[p for p in hidden if given == "all" and p not in known]], lr=1e-2)
    other = torch.optim.Adam(hidden, lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(320):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if beside:
                other.step()
                other.zero_grad()
    return monitor


def test_layers_in_a_list() -> None:
    monitor = classify(list)
    first, last = monitor.alerts[0], monitor.alerts[-1]
    assert (first.rule, first.layer, first.severity, first.value) == ("unregistered", "head", Severity.WARNING, 320.0)
    assert (last.rule, last.severity) == ("unregistered", Severity.ERROR)
    found = monitor.report().diagnoses[0]
    assert (found.cause, found.change) == ("unregistered", "loop")
    assert found.remedy.startswith("put layers that are in a list into an nn.ModuleList")


@pytest.mark.parametrize(
    "known",
    [
        {"kind": nn.ModuleList},
        {"kind": list, "given": "all"},
        {"kind": list, "beside": True},
        {"kind": list, "frozen": True},
    ],
    ids=["registered", "the optimizer's", "another optimizer's", "frozen"],
)
def test_what_is_trained_or_frozen_is_none(known: dict[str, object]) -> None:
    assert "unregistered" not in {a.rule for a in classify(**known).alerts}  # type: ignore[arg-type]


def test_where_the_optimizer_is_not_known_nothing_is() -> None:
    model = Listed(list)
    monitor = gw.Monitor(model, sinks=())
    for _ in range(16):
        model(torch.ones(4, 2)).sum().backward()
        monitor.step()
        assert monitor.history.now.unregistered is None
    assert monitor.alerts == []


def test_what_was_told_is_going_on_after_a_checkpoint() -> None:
    """Until a step is probed it is not known, which is no recovery."""
    torch.manual_seed(0)
    model = Listed(list)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train(monitor: gw.Monitor, steps: int) -> gw.Monitor:
        for _ in range(steps):
            model(torch.ones(4, 2)).sum().backward()
            monitor.step()
            optimizer.step()
            optimizer.zero_grad()
        return monitor

    first = train(gw.Monitor(model, optimizer=optimizer, sinks=()), 20)
    again = gw.Monitor(model, optimizer=optimizer, sinks=())
    again.load_state_dict(first.state_dict())
    assert train(again, 100).report().verdict.startswith("unregistered: head")


def test_what_lies_between_two_parts_that_are_watched_is_none_of_theirs() -> None:
    torch.manual_seed(0)
    adapter, backbone, head = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1)
    own = nn.ModuleList([adapter, head])
    optimizer = torch.optim.SGD(own.parameters(), lr=1e-2)
    monitor = gw.Monitor(own, optimizer=optimizer, sinks=())
    for step in range(20):
        optimizer.zero_grad()
        x = normal(8, 2, seed=step)
        (head(backbone(adapter(x)).tanh()) - x.sum(1, keepdim=True)).square().mean().backward()
        monitor.step()
        optimizer.step()
    assert monitor.alerts == []
