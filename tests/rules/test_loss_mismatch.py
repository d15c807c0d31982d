from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import gradwatch as gw
from gradwatch import Severity
from gradwatch.records import MISTAKES
from gradwatch.rules import LossMismatch
from gradwatch.rules.loss_mismatch import SURE, WORDS
from tests.histories import NAN, layers, stats

RULE = LossMismatch()


def check(seen: list[float | None], **more: Any) -> list[gw.Alert]:
    rule, history = LossMismatch(), gw.History()
    found: list[gw.Alert] = []
    for step, mistake in enumerate(seen):
        looked = {} if mistake is None else {"loss_mismatch": mistake, **more}
        history.append(stats(step, layers([1.0, 2.0, None]), **looked))
        found += rule.check(history)
    return found


@pytest.mark.parametrize("mistake", [m for m in MISTAKES if m not in ("raw", "probabilities")])
def test_it_must_last_and_is_told_of_the_last_layer_with_a_gradient(mistake: str) -> None:
    place, looks = float(MISTAKES.index(mistake)), SURE if mistake == "sign" else RULE.patience
    (alert,) = check([None, *[place] * (looks - 1), None, place, NAN, None], output_error=1.0)
    assert (alert.step, alert.layer, alert.severity) == (looks + 1, "fc1", Severity.WARNING)
    assert (alert.message, alert.value) == (f"fc1: {WORDS[mistake]}", place)


@pytest.mark.parametrize(
    ("mistake", "error", "found"), [("raw", 0.1, 1), ("probabilities", 0.1, 0), ("probabilities", 0.9, 1)]
)
def test_what_may_be_something_else_is_told_late(mistake: str, error: float, found: int) -> None:
    """Values that are far too low have the gradient of raw outputs, and probabilities an absolute error of their own,
    which learns, if slowly."""
    place = float(MISTAKES.index(mistake))
    alerts = check([*[place] * 16, *[None] * 84, place], output_error=error)
    assert [a.step for a in alerts] == [100] * found


def test_a_look_without_it_begins_anew() -> None:
    almost: list[float | None] = [0.0] * (RULE.patience - 1)
    assert check([*almost, NAN, *almost], output_error=0.9) == []
    (alert,) = check([*almost, NAN, *almost], output_error=NAN)  # one that tells nothing does not
    assert alert.step == RULE.patience


def test_a_long_name_stands_in_the_alert_as_it_is() -> None:
    name, rule, history, found = "x" * 300, LossMismatch(), gw.History(), list[gw.Alert]()
    for step in range(RULE.patience):
        history.append(stats(step, {"body": 1.0, name: 1.0}, loss_mismatch=0.0))
        found += rule.check(history)
    assert [(a.layer, a.message) for a in found] == [(name, f"{name}: {WORDS['softmax']}")]


SIGN = float(MISTAKES.index("sign"))


def test_what_has_learned_is_pushed_back_on_purpose() -> None:
    """As by a loss that is flooded."""
    assert check([SIGN] * 20, output_error=0.2) == []


@pytest.mark.parametrize("last", [0.14, NAN])
def test_a_negated_loss_that_has_done_its_work_tells_no_more(last: float) -> None:
    """The gradients at the outputs are larger than at first, or all have one size, which is not counted."""
    rule, history = LossMismatch(), gw.History()
    found: list[gw.Alert] = []
    for step, mistake, gradient in [*((i, SIGN, 0.1) for i in range(10)), (100, NAN, 0.11), (200, NAN, last)]:
        error = NAN if np.isnan(mistake) else 1.0
        seen = {"loss_mismatch": mistake, "output_gradient": gradient, "output_error": error, "output_row": 1.0}
        history.append(stats(step, layers([1.0, 2.0]), **seen))
        found += rule.check(history)
    assert [(a.step, a.severity) for a in found] == [(SURE - 1, Severity.WARNING), (200, Severity.ERROR)]


def test_rewards_that_are_all_below_zero_now_and_then_negate_no_loss() -> None:
    """In between the gradient is that of no cross entropy at all, and of any size."""
    looks: list[float | None] = [*[SIGN] * (SURE - 1), NAN, *[SIGN] * (SURE - 1), *[None] * 100, SIGN, NAN]
    assert check(looks, output_gradient=0.1, output_row=0.0) == []


def test_a_policy_that_is_rewarded_below_zero_at_first() -> None:
    torch.manual_seed(0)
    best, model = torch.randn(10, 5), nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(320):
            x = torch.randn(16, 10)
            actions = torch.distributions.Categorical(logits=model(x))
            taken = actions.sample()
            reward = (taken == (x @ best).argmax(1)).float() - 0.2
            optimizer.zero_grad()
            (-(actions.log_prob(taken) * reward).mean()).backward()
            optimizer.step()
    assert monitor.alerts == []


def test_every_mistake_has_words() -> None:
    assert tuple(WORDS) == MISTAKES


def train(loss: Callable[[Tensor, Tensor], Tensor], tail: nn.Module, lr: float, steps: int = 320) -> gw.Monitor:
    """Three classes that a line separates."""
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    y = (x[:, :3]).argmax(1)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3), tail)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    return monitor


def test_what_learns_all_the_same_is_a_warning() -> None:
    monitor = train(F.cross_entropy, nn.Softmax(1), lr=2.0)
    assert [(a.rule, a.layer, a.severity) for a in monitor.alerts] == [("loss_mismatch", "2", Severity.WARNING)]
    assert monitor.history.progress.left < 0.7
    report = monitor.report()
    assert report.diagnoses[0].cause == "loss_mismatch"
    assert report.diagnoses[0].remedy.startswith("leave the softmax off the model's output in training")


def test_what_does_not_is_an_error() -> None:
    monitor = train(F.cross_entropy, nn.Softmax(1), lr=1e-2)
    assert [(a.rule, a.severity) for a in monitor.alerts] == [
        ("loss_mismatch", Severity.WARNING),
        ("loss_mismatch", Severity.ERROR),
    ]


def test_a_negated_loss_is_an_error_once_the_outputs_are_worse() -> None:
    monitor = train(lambda z, y: -F.cross_entropy(z, y), nn.Identity(), lr=0.1)
    assert [(a.rule, a.severity) for a in monitor.alerts if not a.follows] == [
        ("loss_mismatch", Severity.WARNING),
        ("loss_mismatch", Severity.ERROR),
    ]
    assert monitor.history.progress.left > 1.1
    assert monitor.report().diagnoses[0].remedy.startswith("take out the minus sign")


def test_an_optimizer_that_maximizes_turns_the_sign() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    for sign, alerts in ((-1, []), (1, ["loss_mismatch"])):
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
        with gw.watch(model, optimizer, sinks=()) as monitor:
            for _ in range(20):
                optimizer.zero_grad()
                (sign * F.cross_entropy(model(x), x[:, :3].argmax(1))).backward()
                optimizer.step()
        assert [a.rule for a in monitor.alerts] == alerts


def test_a_policy_that_is_punished_is_at_most_a_warning() -> None:
    """Its gradient is that of a negated cross entropy of what it did; what it does becomes better all the same."""
    generator = torch.Generator().manual_seed(0)

    def punished(z: Tensor, y: Tensor) -> Tensor:
        did = torch.multinomial(z.detach().softmax(1), 1, generator=generator)[:, 0]
        return ((did != y).float() * z.log_softmax(1)[range(len(y)), did]).mean()

    monitor = train(punished, nn.Identity(), lr=0.5)
    assert max([a.severity for a in monitor.alerts], default=Severity.INFO) < Severity.ERROR


class BackToFront(nn.Module):
    """Its layers are registered in another order than they are called in."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(16, 3), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.head(torch.tanh(self.body(x))), 1)


def test_the_layer_named_is_the_one_that_was_heard() -> None:
    torch.manual_seed(0)
    model, x = BackToFront(), torch.randn(32, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(10):
            model.zero_grad()
            F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            monitor.step()
    assert [a.layer for a in monitor.alerts] == ["head"]


def test_a_layer_that_the_optimizer_does_not_have_is_not_judged() -> None:
    """As an adversary, whose loss is negated for those who are to fool it."""
    steps = [{"loss_mismatch": float(MISTAKES.index("sign")), "output_row": 1.0, "output_error": 1.0}] * 10
    for trained, alerts in (([True, True], 1), ([True, False], 0)):
        rule, history, found = LossMismatch(), gw.History(), list[gw.Alert]()
        for step, look in enumerate(steps):
            history.append(stats(step, layers([1.0, 1.0]), trained=np.array(trained), **look))
            found += rule.check(history)
        assert len(found) == alerts


@pytest.mark.parametrize("lr", [1e-3, 0.5])
def test_a_loss_that_fits_is_none(lr: float) -> None:
    assert train(F.cross_entropy, nn.Identity(), lr).alerts == []


def test_values_that_are_far_too_low_are_a_warning_until_they_should_have_come_near() -> None:
    """As of a Huber loss, whose gradient is that of a negative log likelihood of raw outputs until then."""
    raw = float(MISTAKES.index("raw"))
    looks = [raw if step < 16 or step % 100 == 0 else None for step in range(401)]
    rule, history, found = LossMismatch(), gw.History(), list[gw.Alert]()
    for step, mistake in enumerate(looks):
        told = {} if mistake is None else {"loss_mismatch": mistake, "output_error": 1.0}
        history.append(stats(step, layers([1.0, 2.0]), **told))
        found += rule.check(history)
    assert [(a.step, a.severity) for a in found] == [(100, Severity.WARNING), (300, Severity.ERROR)]


def test_targets_that_broadcast_are_told_in_the_first_steps() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 4)
    y = x[:, 0] * x[:, 1] + 2.345
    for shape, alerts in (((256,), ["loss_mismatch"]), ((256, 1), [])):
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        with gw.watch(model, optimizer, sinks=()) as monitor:
            for _ in range(20):
                optimizer.zero_grad()
                (model(x) - y.view(shape)).square().mean().backward()
                optimizer.step()
        assert [a.rule for a in monitor.alerts] == alerts


def test_a_loss_of_two_calls_is_told_by_the_one_whose_output_is_known() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3), nn.Softmax(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(10):
            optimizer.zero_grad()
            sum(F.cross_entropy(model(part), part[:, :3].argmax(1)) for part in x.split(32)).backward()
            optimizer.step()
    assert [a.rule for a in monitor.alerts] == ["loss_mismatch"]
