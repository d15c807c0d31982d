from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import Unread
from tests.histories import NAN, stats, told_by
from tests.tensors import normal

RULE = Unread()


def check(looks: list[tuple[float, float] | None], name: str = "fc0") -> list[gw.Alert]:
    """Of looks at the steps and sequences of a first layer that are read."""
    fields = ("steps_read", "sequences_read")
    read = [{} if look is None else dict(zip(fields, np.array([look, [NAN, NAN]]).T)) for look in looks]
    return told_by(Unread(), [stats(i, {name: 1.0, "head": 1.0}, **more) for i, more in enumerate(read)])


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ((64.0, 1.0), "of the batch the last sequence alone gets a gradient, at 64 time steps: is batch_first right?"),
        ((1.0, 64.0), "of all time steps the first one alone gets a gradient"),
    ],
)
def test_it_must_last(read: tuple[float, float], says: str) -> None:
    (alert,) = check([None, *[read] * RULE.patience, None, read])
    assert (alert.step, alert.layer, alert.severity) == (RULE.patience, "fc0", Severity.WARNING)
    assert alert.message.startswith(f"fc0: {says}")
    few = [read] * (RULE.patience - 1)
    assert check([*few, (64.0, 64.0), *few]) == []


@pytest.mark.parametrize("read", [(64.0, 64.0), (2.0, 2.0), (1.0, 1.0), (NAN, 1.0), (1.0, NAN), (NAN, NAN)])
def test_what_is_read_or_not_known(read: tuple[float, float]) -> None:
    assert check([read] * 3 * RULE.patience) == []


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name = "x" * 300
    assert [a.layer for a in check([(64.0, 1.0)] * RULE.patience, name)] == [name]


class Reader(nn.Module):
    """Reads the mean of a sequence from an output at one place."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool, place: int) -> None:
        super().__init__()
        self.rnn = kind(1, 16, batch_first=batch_first)  # type: ignore[call-arg, arg-type]
        self.head, self.place = nn.Linear(16, 1), place

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, self.place])


def train(kind: type[nn.RNNBase], batch_first: bool = True, place: int = -1) -> gw.Monitor:
    torch.manual_seed(0)
    model, batch = Reader(kind, batch_first, place), 12
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for step in range(60):
            x = normal(batch, 12, 1, seed=step)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), x.mean(1)).backward()
            optimizer.step()
    return monitor


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_batch_and_time_mixed_up_and_the_first_output(kind: type[nn.RNNBase]) -> None:
    assert train(kind).alerts == []
    for wrong, steps in (({"batch_first": False}, 12.0), ({"place": 0}, 1.0)):
        monitor = train(kind, **wrong)  # type: ignore[arg-type]
        assert [(a.rule, a.layer, a.value, a.severity) for a in monitor.alerts] == [
            ("unread", "rnn", steps, Severity.WARNING)
        ]
        found = monitor.report().diagnoses[0]
        assert (found.cause, found.change, found.layers) == ("unread", "loop", ("rnn",))
        assert ("batch_first" in found.remedy.partition(",")[0]) == (steps > 1)


def test_a_loss_that_is_about_the_worst_sequence() -> None:
    """Which is another one at each step."""
    torch.manual_seed(0)
    model = Reader(nn.GRU, batch_first=True, place=-1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for step in range(30):
            x = normal(12, 12, 1, seed=step)
            optimizer.zero_grad()
            (model(x) - x.mean(1)).square().max().backward()
            optimizer.step()
    assert monitor.alerts == []
