from __future__ import annotations

import numpy as np
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import Symmetric
from tests.histories import layers, stats

RULE = Symmetric()


def check(seen: list[list[bool] | None]) -> list[gw.Alert]:
    rule, history = Symmetric(), gw.History()
    found: list[gw.Alert] = []
    for step, alike in enumerate(seen):
        told = None if alike is None else np.array(alike)
        history.append(stats(step, layers([1.0, 1.0, 1.0]), alike=told))
        found += rule.check(history)
    return found


def test_layers_that_stay_alike_are_told_together() -> None:
    (alert,) = check([None, *[[True, True, False]] * RULE.patience, None, [True, True, False]])
    assert (alert.step, alert.layers, alert.severity) == (RULE.patience, ("fc0", "fc1"), Severity.WARNING)
    assert alert.message.startswith("fc1, fc0: all of its units have the same weights")


def test_a_look_at_which_they_differ_begins_anew() -> None:
    almost: list[list[bool] | None] = [[True, False, False]] * (RULE.patience - 1)
    assert check([*almost, [False] * 3, *almost]) == []


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name, rule, history, found = "x" * 300, Symmetric(), gw.History(), list[gw.Alert]()
    for step in range(RULE.patience):
        history.append(stats(step, {name: 1.0, "out": 1.0}, alike=np.array([True, False])))
        found += rule.check(history)
    assert [(a.layer, a.message) for a in found] == [(name, f"{name}: {RULE.describe(0.0, 0.0)}")]


def train(weight: float | None, steps: int = 320) -> gw.Monitor:
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    y = ((x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0)).long()
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))
    for layer in model:
        if isinstance(layer, nn.Linear) and weight is not None:
            nn.init.constant_(layer.weight, weight)
            nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return monitor


def test_weights_of_one_number() -> None:
    monitor = train(0.2)
    found = [(a.rule, a.layer, a.severity) for a in monitor.alerts]
    assert found[0] == ("symmetric", "0", Severity.WARNING)
    assert found[-1] == ("symmetric", "0", Severity.ERROR)
    assert monitor.alerts[-1].message.endswith("of the outputs' error is left")
    report = monitor.report()
    assert (report.diagnoses[0].cause, report.diagnoses[0].layers) == ("symmetry", ("0",))
    assert (
        report.diagnoses[0].remedy
        == "draw the initial weights of layer 0 at random, as torch.nn.init.kaiming_normal_ does"
    )


def test_weights_at_random() -> None:
    assert train(None).alerts == []
