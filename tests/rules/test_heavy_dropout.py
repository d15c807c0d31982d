from __future__ import annotations

import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import HeavyDropout
from tests.histories import NAN, layers, stats, told_by
from tests.tensors import normal


def check(dropped: float, left: float, rule: HeavyDropout | None = None) -> list[gw.Alert]:
    """Of a look at every hundredth step, where this share of a cross entropy is left."""
    look = {"dropped": dropped, "output_error": left}
    run = [stats(i, layers([1.0]), **(look if i and i % 100 == 0 else {})) for i in range(401)]
    return told_by(rule or HeavyDropout(), run)


def test_where_little_is_learned_it_is_a_warning_and_where_nothing_is_an_error() -> None:
    (alert,) = check(0.95, 0.8)
    assert (alert.step, alert.concerned, alert.severity) == (200, (), Severity.WARNING)
    assert alert.message == "a dropout layer sets 95% of what it is given to zero, and little has been learned"
    assert [(a.step, a.severity) for a in check(0.95, 0.99)] == [(200, Severity.WARNING), (300, Severity.ERROR)]


@pytest.mark.parametrize(("dropped", "left"), [(0.95, 0.6), (0.79, 1.0), (0.0, 1.0), (NAN, 1.0), (0.95, NAN)])
def test_what_is_usual_or_learned_or_not_known(dropped: float, left: float) -> None:
    assert check(dropped, left) == []


def test_a_limit_of_ones_own() -> None:
    assert len(check(0.6, 0.8, HeavyDropout(threshold=0.6))) == 1
    with pytest.raises(ValueError, match="HeavyDropout: threshold must be above 0 and at most 1, got 2"):
        HeavyDropout(threshold=2.0)


def train(p: float) -> gw.Monitor:
    torch.manual_seed(0)
    x = normal(256, 4)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(320):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return monitor


def test_nearly_all_is_dropped() -> None:
    monitor = train(0.97)
    assert "heavy_dropout" in {a.rule for a in monitor.alerts}
    found = monitor.report().diagnoses[0]
    assert (found.cause, found.change, found.remedy) == (
        "heavy_dropout",
        "dropout",
        "set the dropout layers' p to 0.5 or less",
    )
    assert train(0.2).alerts == []
