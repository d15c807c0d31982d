from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch as gw
from gradwatch import Alert, Severity
from gradwatch.rules import OutOfReach
from gradwatch.rules.asked import FIRST
from tests.histories import NAN, layers, stats, told_by

RULE = OutOfReach()


def check(shares: list[float | None], asked: float = 1.0, **more: Any) -> list[Alert]:
    """Of a look at each of the first steps, and of one at every hundredth that tells of ``shares``."""
    looks = {**dict.fromkeys(range(1, FIRST + 1), (0.0, 1.0))}
    looks |= {100 * (number + 1): (share, asked) for number, share in enumerate(shares)}
    return told_by(
        OutOfReach(),
        [
            stats(
                step,
                layers([1.0, 1.0]),
                **(
                    {"output_gradient": 0.1, "out_of_reach": looks[step][0], "loss_gradient": looks[step][1], **more}
                    if step in looks
                    else {}
                ),
            )
            for step in range(100 * len(shares) + 1)
        ],
    )


@pytest.mark.parametrize(("asked", "severity"), [(0.9, Severity.ERROR), (0.7, Severity.WARNING)])
def test_two_looks_in_a_row(asked: float, severity: Severity) -> None:
    first, over = check([0.95, 0.96, 0.97, 0.1, 0.1], asked)
    assert (first.step, first.layer, first.severity, first.value) == (200, "fc1", severity, 0.96)
    assert first.message == (
        "fc1: 96% of the squared error is beyond what the activation behind it can give, and "
        f"{asked**2:.0%} of the first one is left"
    )
    assert (over.step, over.severity) == (400, Severity.INFO)


@pytest.mark.parametrize(
    ("shares", "asked", "more"),
    [
        ([0.95, 0.1] * 3, 1.0, {}),
        ([0.5] * 5, 1.0, {}),
        ([0.95] * 5, 0.5, {}),  # not much is left
        ([NAN] * 5, 1.0, {}),
        ([None] * 5, 1.0, {}),
        ([0.95] * 5, NAN, {}),
        ([0.95] * 5, 1.0, {"output_error": 0.5}),
        ([0.95] * 5, 1.0, {"half": True}),
    ],
)
def test_other_runs(shares: list[float | None], asked: float, more: dict[str, Any]) -> None:
    assert check(shares, asked, **more) == []


def test_the_start_is_not_judged() -> None:
    run = [stats(i, layers([1.0]), output_gradient=0.1, loss_gradient=1.0, out_of_reach=1.0) for i in range(99)]
    assert told_by(OutOfReach(), run) == []


def test_it_is_told_of_the_last_layer_that_is_trained_whatever_its_name() -> None:
    name, looked = "x" * 300, {"output_gradient": 0.1, "loss_gradient": 1.0, "out_of_reach": 0.9}
    run = [stats(i, {"body": 1.0, name: 1.0, "frozen": None}, **looked) for i in range(110)]
    (alert,) = told_by(OutOfReach(), run)
    assert (alert.step, alert.layer, alert.value) == (RULE.warmup + RULE.patience - 1, name, 0.9)


def trained(behind: nn.Module, targets: Callable[[Tensor], Tensor]) -> gw.Report:
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1), behind)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gw.watch(model, optimizer, sinks=(), histogram_every_n_steps=20) as monitor:
        for _ in range(200):
            optimizer.zero_grad()
            functional.mse_loss(model(x), targets(x)).backward()
            optimizer.step()
    return monitor.report()


@pytest.mark.parametrize(
    ("behind", "what", "targets", "severity"),
    [
        (nn.ReLU(), "Relu in layer 3", lambda x: x[:, :1] + 0.2, Severity.WARNING),
        (nn.Sigmoid(), "Sigmoid in layer 3", lambda x: 3 * x[:, :1], Severity.WARNING),
        (nn.Sigmoid(), "Sigmoid in layer 3", lambda x: 100 + 10 * x[:, :1], Severity.ERROR),
    ],
)
def test_targets_that_cannot_be_given(
    behind: nn.Module, what: str, targets: Callable[[Tensor], Tensor], severity: Severity
) -> None:
    report = trained(behind, targets)
    assert [(a.rule, a.layer, a.severity) for a in report.alerts if a.rule == "out_of_reach"][:1] == [
        ("out_of_reach", "2", severity)
    ]
    found = next(d for d in report.diagnoses if d.cause == "out_of_reach")
    assert found.remedy.startswith(f"leave {what} off the model's output")
    assert what in found.evidence[0]


@pytest.mark.parametrize(
    ("behind", "targets"),
    [
        (nn.Identity(), lambda x: x[:, :1] - 0.5),
        (nn.ReLU(), lambda x: torch.relu(x[:, :1])),  # half of them are zero
        (nn.Sigmoid(), lambda x: torch.sigmoid(10 * x[:, :1])),
        (nn.Sigmoid(), lambda x: (x[:, :1] > 0).float()),
    ],
)
def test_targets_that_can(behind: nn.Module, targets: Callable[[Tensor], Tensor]) -> None:
    assert trained(behind, targets).alerts == ()


@pytest.mark.parametrize("argument", ["share", "lost", "nearly_all"])
def test_arguments_out_of_range(argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^OutOfReach: {argument} must be above 0 and at most 1, got 1.5$"):
        OutOfReach(**{argument: 1.5})
