from __future__ import annotations

import numpy as np
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import Untrained
from tests.histories import layers, stats

RULE = Untrained()


def test_it_must_last_and_is_over_when_the_optimizer_gets_them() -> None:
    rule, history, found = Untrained(), gw.History(), list[gw.Alert]()
    idle = np.array([True, True, False])
    looks = [None, *[idle] * RULE.patience, None, ~idle & False, *[idle] * (RULE.patience - 1)]
    for step, told in enumerate(looks):
        more = {} if told is None else {"idle": told}
        history.append(stats(step, layers([None, None, 1.0]), **more))
        found += rule.check(history)
    assert [(a.step, a.layers, a.severity) for a in found] == [(RULE.patience, ("fc0", "fc1"), Severity.WARNING)]
    assert found[0].message == f"fc1, fc0: {RULE.describe(0.0, 0.0)}"


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name, rule, history, found = "x" * 300, Untrained(), gw.History(), list[gw.Alert]()
    for step in range(RULE.patience):
        history.append(stats(step, {name: None, "out": 1.0}, idle=np.array([True, False])))
        found += rule.check(history)
    assert [(a.layer, a.message) for a in found] == [(name, f"{name}: {RULE.describe(0.0, 0.0)}")]


def classify(trained: str, frozen: bool = False, other: bool = False) -> gw.Monitor:
    """Whether two numbers have one sign, which the last layer alone cannot tell."""
    torch.manual_seed(0)
    x = torch.randn(256, 2)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
    model[:4].requires_grad_(not frozen)
    parts = {"all": model, "last": model[4]}
    optimizer = torch.optim.Adam(parts[trained].parameters(), lr=3e-2)
    beside = torch.optim.Adam(model[:4].parameters(), lr=3e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(320):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if other:
                beside.step()
    return monitor


def test_an_optimizer_that_was_given_the_last_layer() -> None:
    monitor = classify("last")
    alert = monitor.alerts[0]
    assert (alert.rule, alert.layers, alert.severity) == ("untrained", ("0", "2"), Severity.WARNING)
    assert monitor.report().verdict.startswith("untrained: 0, 2 (2 of 3 layers)")
    found = monitor.report().diagnoses[0]
    assert (found.cause, found.layers, found.change) == ("untrained", ("0", "2"), "loop")
    assert found.remedy.startswith("give the optimizer the parameters of layers 0 and 2")


def test_what_is_frozen_or_another_optimizers_is_none() -> None:
    assert "untrained" not in {a.rule for a in classify("last", frozen=True).alerts}
    assert classify("last", other=True).alerts == []
    assert classify("all").alerts == []
