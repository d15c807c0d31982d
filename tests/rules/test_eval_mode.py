from __future__ import annotations

import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import EvalMode
from tests.histories import NAN, layers, stats, told_by
from tests.tensors import normal

RULE = EvalMode()


def check(looks: list[float | None]) -> list[gw.Alert]:
    seen = [{} if look is None else {"evaluates": look} for look in looks]
    return told_by(EvalMode(), [stats(i, layers([1.0, 1.0]), **more) for i, more in enumerate(seen)])


def test_it_must_last_and_concerns_the_whole_model() -> None:
    (alert,) = check([None, *[1.0] * (RULE.patience - 1), NAN, None, 1.0, 1.0])
    assert (alert.step, alert.concerned, alert.severity) == (RULE.patience + 2, (), Severity.WARNING)
    assert alert.message.startswith("the model is trained in evaluation mode")
    few = [1.0] * (RULE.patience - 1)
    assert check([*few, 0.0, *few]) == []


def train(validates_at: int = -1, forgets: bool = True) -> gw.Monitor:
    torch.manual_seed(0)
    x = normal(64, 4)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for step in range(30):
            if step == validates_at:
                model.eval()
                with torch.no_grad():
                    model(x)
                if not forgets:
                    model.train()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return monitor


def test_a_validation_after_which_it_is_not_put_back() -> None:
    monitor = train(validates_at=3)
    assert [(a.rule, a.step) for a in monitor.alerts] == [("eval_mode", 3 + RULE.patience - 1)]
    assert monitor.report().verdict == "eval_mode: the whole model"
    found = monitor.report().diagnoses[0]
    assert (found.cause, found.change) == ("eval_mode", "loop")
    assert found.remedy.startswith("call model.train()")


def test_a_validation_after_which_it_is() -> None:
    assert train(validates_at=3, forgets=False).alerts == []
    assert train().alerts == []
