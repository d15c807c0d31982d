from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch as gw
from gradwatch import Alert, Severity
from gradwatch.rules import FlatOutput
from gradwatch.rules.asked import FIRST
from tests.histories import INF, NAN, history_of, layers, stats

RULE = FlatOutput()
BEGINS = [(1.0, 1.0)] * FIRST


def check(looks: Sequence[tuple[float | None, float | None]], every: int = 1, **more: Any) -> list[Alert]:
    """Of looks that tell what arrived at the last layer and what the loss asked for, ``every`` so many steps."""
    rule, history, found = FlatOutput(), history_of([]), []
    for number, (passed, asked) in enumerate(looks):
        for step in range(every):
            seen = {"output_gradient": passed, "loss_gradient": asked, "output_variation": 0.0, **more}
            seen = seen if step == 0 else {}
            history.append(stats(number * every + step, layers([1.0, 1.0]), **seen))
            found += rule.check(history)
    return found


def test_what_the_loss_asks_for_does_not_arrive() -> None:
    (alert,) = check([*BEGINS, *[(1e-3, 0.9)] * 20])
    assert (alert.step, alert.layer, alert.severity) == (FIRST + RULE.patience - 1, "fc1", Severity.ERROR)
    assert (alert.value, alert.threshold) == (1e-3, RULE.passed)
    assert alert.message == (
        "fc1: its output gets 0.001 of the gradient that it got at first, and the loss asks for 90% of what it did"
    )


def test_later_on_where_looks_are_far_apart() -> None:
    looks = [*BEGINS, *[(1.0, 1.0)] * 3, *[(0.0, 1.0)] * 5, (0.5, 0.5)]
    first, over = check(looks, every=100)
    assert (first.step, first.severity) == (100 * (FIRST + 3 + RULE.late_patience - 1), Severity.ERROR)
    assert (over.step, over.severity) == (100 * (len(looks) - 1), Severity.INFO)


@pytest.mark.parametrize(
    "looks",
    [
        [(1e-3, 0.5)] * 40,  # it has learned, a binary cross entropy of probabilities
        [(0.02, 1.0)] * 40,
        [*[(1e-3, 1.0)] * (RULE.patience - 1), (1.0, 1.0)] * 5,
        [(0.0, 0.0)] * 40,
        [(NAN, 1.0)] * 40,
        [(1e-3, NAN)] * 40,
        [(1e-3, INF)] * 40,
        [(None, 1.0)] * 40,
        [(1e-3, None)] * 40,
    ],
)
def test_other_runs_are_not_cut_off(looks: list[tuple[float | None, float | None]]) -> None:
    assert check([*BEGINS, *looks]) == []


def test_where_nothing_arrived_from_the_start_nothing_is_known() -> None:
    assert check([(0.0, 1.0)] * 40) == []


def test_a_cross_entropy_is_judged_by_its_error() -> None:
    assert check([*BEGINS, *[(1e-3, 1.0)] * 20], output_error=0.1) == []


@pytest.mark.parametrize(("variation", "alerts"), [(1e-3, 1), (0.1, 0), (NAN, 0), (None, 0)])
def test_outputs_that_differ_have_learned_to(variation: float | None, alerts: int) -> None:
    assert len(check([*BEGINS, *[(1e-3, 1.0)] * 20], output_variation=variation)) == alerts


@pytest.mark.parametrize(("half", "alerts"), [(None, 1), (False, 1), (True, 0)])
def test_in_half_precision_a_loss_scale_may_have_changed(half: bool | None, alerts: int) -> None:
    assert len(check([*BEGINS, *[(1e-3, 1.0)] * 20], half=half)) == alerts


def test_it_is_told_of_the_last_layer_that_is_trained_whatever_its_name() -> None:
    name, rule, history = "x" * 300, FlatOutput(), history_of([])
    found: list[Alert] = []
    for number in range(20):
        seen = {"output_gradient": float(number < FIRST), "loss_gradient": 1.0, "output_variation": 0.0}
        history.append(stats(number, {"body": 1.0, name: 1.0, "frozen": None}, **seen))
        found += rule.check(history)
    assert [(a.layer, a.value) for a in found] == [(name, 0.0)]


def trained(behind: nn.Module, targets: Tensor, steps: int = 120, lr: float = 0.05) -> list[str]:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1), behind)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    with gw.watch(model, optimizer, sinks=(), histogram_every_n_steps=20) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            functional.mse_loss(model(x), targets).backward()
            optimizer.step()
    return [a.rule for a in monitor.alerts if a.severity is Severity.ERROR]


def test_a_sigmoid_cannot_reach_targets_of_a_hundred() -> None:
    assert "flat_output" in trained(nn.Sigmoid(), torch.full((64, 1), 100.0) + torch.randn(64, 1))
    assert trained(nn.Identity(), torch.randn(64, 1)) == []
    assert trained(nn.Sigmoid(), torch.rand(64, 1)) == []


def test_a_relu_that_gives_nothing_but_zeros() -> None:
    assert "flat_output" in trained(nn.ReLU(), torch.randn(64, 1) - 3.0)


def test_a_segmentation_that_is_asked_for_overlap_whatever_its_sigmoids_pass() -> None:
    """The gradient of a Dice loss does not fall as it is learned."""
    torch.manual_seed(0)
    x = torch.randn(16, 1, 8, 8)
    y = (x > 0).float()
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=(memory := gw.sinks.Memory(),), histogram_every_n_steps=20) as monitor:
        for _ in range(400):
            optimizer.zero_grad()
            p = model(x)
            (1 - 2 * (p * y).sum() / (p.sum() + y.sum())).backward()
            optimizer.step()
    looks = [r.stats for r in memory.reports if r.stats is not None and r.stats.loss_gradient is not None]
    first, last = looks[0], looks[-1]
    assert last.output_gradient < 0.05 * first.output_gradient  # type: ignore[operator]
    assert last.loss_gradient > 0.75 * first.loss_gradient  # type: ignore[operator]
    assert monitor.alerts == []


def errors(monitor: gw.Monitor) -> list[str]:
    return [a.rule for a in monitor.alerts if a.severity is Severity.ERROR]


@pytest.mark.parametrize(("lr", "scaled"), [(0.05, False), (4e-3, True)])
def test_a_discriminator_that_tells_all_apart(lr: float, scaled: bool) -> None:
    """It sees each class in a call of its own; and a loss scale that grows asks for no more."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=256.0, growth_interval=50)
    with gw.watch(model, optimizer, scaler=scaler, sinks=(), histogram_every_n_steps=50) as monitor:
        for _ in range(400):
            optimizer.zero_grad()
            real, fake = (model(0.3 * torch.randn(64, 8) + mean) for mean in (1, -1))
            loss = functional.binary_cross_entropy(real, torch.ones(64, 1))
            scaler.scale(loss + functional.binary_cross_entropy(fake, torch.zeros(64, 1))).backward()
            scaler.step(optimizer)
            scaler.update()
    assert errors(monitor) == []


def test_log_probabilities_are_asked_for_as_much_when_all_is_learned() -> None:
    torch.manual_seed(0)
    classes = 200
    model = nn.Sequential(nn.Linear(classes, 64), nn.Tanh(), nn.Linear(64, classes), nn.LogSoftmax(-1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=600)
    x, targets = torch.eye(classes), torch.full((classes, classes), 0.1 / classes) + 0.9 * torch.eye(classes)
    with gw.watch(model, optimizer, sinks=(), histogram_every_n_steps=50) as monitor:
        for _ in range(600):
            optimizer.zero_grad()
            functional.kl_div(model(x), targets, reduction="batchmean").backward()
            optimizer.step()
            schedule.step()
    assert errors(monitor) == []
