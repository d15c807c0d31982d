from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.alert_log import AlertLog
from gradwatch.rules import NoGradient
from tests.histories import history_of, layers, stats

RULE = NoGradient()


def check(norms: list[float | None], trained: list[bool] | None, steps: int = 40) -> set[tuple[Severity, str | None]]:
    found, rule, history = set(), NoGradient(), gw.History()
    for step in range(steps):
        more = {"trained": np.array(trained)} if trained is not None and step == 1 else {}
        history.append(stats(step, layers(norms), **more))
        alerts = rule.check(history)
        assert step >= RULE.patience - 1 or alerts == []
        found |= {(a.severity, a.layer) for a in alerts}
    return found


@pytest.mark.parametrize(
    ("norms", "trained", "expected"),
    [
        ([None, None], None, {(Severity.ERROR, None)}),
        ([None, 1.0], [True, True], {(Severity.WARNING, "fc0")}),
        ([None, None, 1.0], [True, True, True], {(Severity.WARNING, None)}),
        ([None, None, 1.0], [True, False, True], {(Severity.WARNING, "fc0")}),
        ([None, 1.0], [False, True], set()),  # frozen, or not the optimizer's
        ([None, 1.0], None, set()),  # nobody knows
        ([1.0, None, 1.0], [True, True, True], set()),  # not used
        ([0.0, 1.0], [True, True], set()),
    ],
)
def test_layers_that_never_had_a_gradient(
    norms: list[float | None], trained: list[bool] | None, expected: set[tuple[Severity, str | None]]
) -> None:
    assert check(norms, trained) == expected


def test_who_had_one_once_is_no_case() -> None:
    assert NoGradient().check(history_of([layers([1.0, None]), *[layers([None, 1.0])] * 40])) == []
    assert NoGradient().check(history_of([{}] * 40)) == []


def train(loss: Callable[[nn.Sequential, Tensor], Tensor], freeze: bool = False) -> list[gw.Alert]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    model[:4].requires_grad_(not freeze)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = gw.watch(model, optimizer, sinks=())
    for _ in range(40):
        optimizer.zero_grad()
        loss(model, torch.randn(16, 4)).backward()
        optimizer.step()
    monitor.close()
    return monitor.alerts


def cut(model: nn.Sequential, x: Tensor) -> Tensor:
    return model[4](model[:4](x).detach()).square().mean()


def test_a_trunk_that_is_detached() -> None:
    (alert,) = train(cut)
    assert (alert.rule, alert.severity, alert.layers) == ("no_gradient", Severity.WARNING, ("0", "2"))
    assert alert.message.endswith(
        "has them: is there a detach() or no_grad() between them and the loss, or are they not used?"
    )
    assert train(cut, freeze=True) == []
    assert train(lambda model, x: model(x).square().mean()) == []


def test_gradients_that_are_gone_before_the_step() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(40):
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.zero_grad()
            optimizer.step()
        report = monitor.report()
    (alert,) = report.alerts
    assert (alert.step, alert.rule, alert.severity, alert.layer) == (19, "no_gradient", Severity.ERROR, "Linear")
    assert report.severity is Severity.ERROR
    (found,) = report.diagnoses
    assert (found.cause, found.layers) == ("detached", ("Linear",))
    assert found.remedy.startswith("call zero_grad() before backward(), not between backward() and step()")


def test_a_skipped_step_makes_no_news() -> None:
    log, rule, history = AlertLog(), NoGradient(), gw.History()
    found = []
    for step in range(60):
        more = {"trained": np.array([True, True])} if step == 1 else {}
        history.append(stats(step, layers([None, 1.0]), skipped=step % 10 == 0, **more))
        found += log.take([(rule, list(rule.check(history)))])
    assert [a.step for a in found] == [RULE.patience - 1]


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^NoGradient: patience must be "):
        NoGradient(patience=0)
