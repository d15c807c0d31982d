from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.rules import NotZeroed
from tests.histories import layers, stats

RULE = NotZeroed()
FINE = layers([1.0, None])


def check(seen: list[bool | None]) -> list[gw.Alert]:
    rule, history = NotZeroed(), gw.History()
    found: list[gw.Alert] = []
    for step, told in enumerate(seen):
        history.append(stats(step, FINE, not_zeroed=told))
        found += rule.check(history)
    return found


def test_it_must_last_and_so_must_its_end() -> None:
    """Zeroed once per epoch, it is zero at some looks."""
    zeroed = [*[False] * (RULE.recovery - 1), True, *[False] * RULE.recovery]
    alerts = check([None, *[True] * RULE.patience, None, *zeroed])
    assert [(a.step, a.layer, a.severity) for a in alerts] == [
        (RULE.patience, "fc0", Severity.ERROR),
        (RULE.patience + 1 + len(zeroed), "fc0", Severity.INFO),
    ]


def test_one_step_with_zeros_in_between_is_enough() -> None:
    assert check([True] * (RULE.patience - 1) + [False] + [True] * (RULE.patience - 1)) == []


def test_where_nothing_moved_there_was_no_step() -> None:
    """The monitor is told of every micro-batch, of which 32 make a step."""
    rule, history = NotZeroed(), gw.History()
    for step in range(RULE.patience * 4):
        moved = 1e-3 if step % 32 == 0 else 0.0
        history.append(stats(step, FINE, not_zeroed=step % 32 > 0, total_update=moved))
        assert rule.check(history) == []


def train(zero: Callable[[nn.Module, int], None], micro_batches: int = 1) -> gw.Monitor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    monitor = gw.watch(model, optimizer, rules=[NotZeroed()], sinks=())
    for step in range(20):
        zero(model, step)
        for _ in range(micro_batches):
            model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
    monitor.close()
    return monitor


def test_a_loop_without_zero_grad() -> None:
    monitor = train(lambda model, step: None)
    (alert,) = monitor.alerts
    assert (alert.step, alert.rule, alert.layers) == (RULE.patience, "not_zeroed", ("0", "2"))
    report = monitor.report()
    assert report.diagnoses[0].cause == "not_zeroed"
    assert report.diagnoses[0].remedy == "call optimizer.zero_grad() once per step, before backward()"


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_loops_with_it(micro_batches: int, set_to_none: bool) -> None:
    assert train(lambda model, step: model.zero_grad(set_to_none), micro_batches).alerts == []


def test_forgotten_now_and_then_is_no_alert() -> None:
    assert train(lambda model, step: model.zero_grad() if step % 2 else None).alerts == []
