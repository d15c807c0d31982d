from __future__ import annotations

import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity


def test_weights_that_are_all_zero() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    for p in model.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(16, 4)), torch.randint(0, 3, (16,))).backward()
            optimizer.step()
        report = monitor.report()
    assert {(a.rule, a.severity) for a in report.alerts} == {("dead", Severity.ERROR)}
    (found,) = report.diagnoses
    assert (found.cause, found.change, found.layers) == ("zero_weights", "init_scale", ("0", "2", "4"))
    assert found.evidence == ("every weight of layers 0 ... 4 is zero, so that no gradient gets past it",)
