from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import History, Severity
from gradwatch.rules import Underflow
from tests.histories import history_of, layers


def train(loss_scale: float, steps: int = 3) -> gw.Monitor:
    """A network whose loss is a millionth of what it should be, under autocast to float16."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    monitor = gw.Monitor(model, rules=[Underflow()], sinks=())
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.float16):
            outputs = model(torch.randn(16, 32))
        (outputs.float().square().mean() * 1e-4 * loss_scale).backward()
        for p in model.parameters():
            p.grad /= loss_scale
        monitor.step()
        model.zero_grad()
    return monitor


def test_small_gradients_in_float16_and_a_loss_scale_against_it() -> None:
    (alert,) = train(loss_scale=1.0).alerts
    assert (alert.step, alert.rule, alert.severity) == (0, "underflow", Severity.ERROR)
    assert "float16 has nothing between 0 and 6e-08: use a GradScaler" in alert.message
    assert train(loss_scale=2.0**16).alerts == []


def test_every_gradient_zero_from_the_first_step_on() -> None:
    rule, nothing = Underflow(), history_of([layers([0.0, 0.0])] * 20)
    assert rule.check(nothing) == []  # in float32
    rule.reset()
    nothing.half = True
    (alert,) = rule.check(nothing)
    assert (alert.step, alert.severity) == (rule.warmup, Severity.ERROR)
    assert alert.message.startswith("fc1, fc0: gradient norm 0;")


@pytest.mark.parametrize(("dtype", "told"), [(torch.float16, ["underflow"]), (torch.bfloat16, [])])
def test_what_layers_computed_in_tells_where_no_gradient_does(dtype: torch.dtype, told: list[str]) -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    monitor = gw.Monitor(model, rules=[Underflow()], sinks=())
    for _ in range(10):
        with torch.autocast("cpu", dtype=dtype):
            outputs = model(torch.randn(16, 32))
        (outputs.float().square().mean() * 1e-30).backward()
        for p in model.parameters():
            p.grad.zero_()
        monitor.step()
        model.zero_grad()
    assert [a.rule for a in monitor.alerts] == told


@pytest.mark.parametrize("first", [[1e-9, 0.0], [1.0, 1.0]])
def test_what_ever_had_a_gradient_is_not_lost_for_zeros(first: list[float]) -> None:
    assert Underflow().check(history_of([layers(first), *[layers([0.0, 0.0])] * 20])) == []


def test_no_gradient_is_not_a_gradient_of_zero() -> None:
    assert Underflow().check(history_of([layers([None, None])] * 20)) == []


def test_the_state_knows_that_it_lived() -> None:
    rule, again = Underflow(), Underflow()
    history = history_of([layers([1.0])])
    list(rule.check(history))
    again.load_state_dict(rule.state_dict())
    for step in range(1, 20):
        history.append(gw.StepStats(step, ("fc0",), np.zeros(1), np.ones(1, bool), 0.0))
        assert list(again.check(history)) == []


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^Underflow: share must be "):
        Underflow(share=0.0)
    with pytest.raises(ValueError, match=r"^Underflow: warmup must be "):
        Underflow(warmup=-1)


def test_an_empty_history_is_fine() -> None:
    assert Underflow().check(History()) == []
