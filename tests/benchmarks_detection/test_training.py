"""train(): which steps it does, when it looks, and what comes of a run, against runs worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.detection.task import Program, Task
from benchmarks.detection.training import LAST_STEPS, curve_points, final_points, train


class Parabola(nn.Module):
    """One weight w, loss w^2 / 2: gradient descent multiplies w by 1 - lr at each step."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def loss(self, step: int) -> Tensor:
        return (self.w**2 / 2).sum()


def descent(lr: float = 0.5, steps: int = 30, **changes: object) -> Task:
    model = Parabola()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Task(model, optimizer, model.loss, lambda: -model.w.item(), trivial=-1.0, steps=steps, **changes)


class Noted:
    """Notes what it is told."""

    def __init__(self, value: Callable[[], float] = lambda: 0.0) -> None:
        self.value = value
        self.events: list[tuple[str, int, float]] = []

    def gradients_ready(self, step: int) -> None:
        self.events.append(("ready", step, self.value()))

    def stepped(self, step: int, loss: float) -> None:
        self.events.append(("stepped", step, loss))


def test_losses_and_metrics_are_those_of_gradient_descent_on_a_parabola() -> None:
    outcome = train(descent(lr=0.5, steps=30))
    assert outcome.losses == pytest.approx([0.5 * 0.25**step for step in range(30)], rel=1e-12)
    assert outcome.metric_curve == tuple((done, -(0.5**done)) for done in range(1, 31))  # powers of two are exact
    done = [28, 28, 28, 29, 29, 29, 30, 30, 30, 30]  # 27.3, 27.6, ... 30 steps, rounded up
    assert outcome.final.tolist() == pytest.approx([-(0.5**k) for k in done], rel=1e-12)
    assert outcome.metric == pytest.approx(-sum(0.5**k for k in done) / 10, rel=1e-12)


def test_the_points_cover_the_run_and_its_last_tenth() -> None:
    assert curve_points(600) == list(range(20, 601, 20))
    assert curve_points(7) == [1, 2, 3, 4, 5, 6, 7]
    assert final_points(600) == list(range(546, 601, 6))


def test_the_observer_sees_complete_gradients_before_clipping_and_then_the_loss() -> None:
    task = descent(steps=2, before_step=lambda step: task.model.w.grad.mul_(0.0))
    noted = Noted(lambda: task.model.w.grad.item())
    train(task, noted)
    # Clipped to nothing, w stays 1: the gradient is 1, the loss 1/2.
    assert noted.events == [("ready", 0, 1.0), ("stepped", 0, 0.5), ("ready", 1, 1.0), ("stepped", 1, 0.5)]


def test_accumulated_batches_are_averaged_and_numbered_through() -> None:
    task = descent(lr=0.0, steps=2, accumulate=4)
    asked: list[int] = []

    def loss(batch: int) -> Tensor:
        asked.append(batch)
        return (task.model.w * batch).sum()

    task.loss = loss
    noted = Noted(lambda: task.model.w.grad.item())
    train(task, noted)
    assert asked == list(range(8))
    assert [value for _, _, value in noted.events] == [1.5, 1.5, 5.5, 5.5]  # the mean of 0..3 and of 4..7, w = 1


def test_gradients_are_unscaled_when_seen_and_an_overflow_is_skipped() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1000)
    task = descent(lr=0.5, steps=3, scaler=scaler)
    plain = task.loss
    task.loss = lambda step: plain(step) * (math.inf if step == 1 else 1.0)
    noted = Noted(lambda: task.model.w.grad.item())
    train(task, noted)
    assert [value for kind, _, value in noted.events if kind == "ready"] == [1.0, math.inf, 0.5]
    assert task.model.w.item() == 0.25  # two steps of three
    assert scaler.get_scale() == 2.0**9


def test_the_scheduler_is_stepped_once_after_each_step() -> None:
    task = descent(lr=0.5, steps=3)
    task.scheduler = torch.optim.lr_scheduler.ExponentialLR(task.optimizer, gamma=0.5)
    train(task)
    assert task.model.w.item() == 0.5 * 0.75 * 0.875


def test_a_loop_of_another_kind_does_its_whole_step_itself() -> None:
    task = descent(steps=2)

    def train_step(step: int, gradients_ready: Callable[[], None]) -> float:
        task.model.w.grad = torch.full((1,), 0.25, dtype=torch.float64)
        gradients_ready()
        task.optimizer.step()
        return 7.0

    task.train_step = train_step
    noted = Noted(lambda: task.model.w.grad.item())
    outcome = train(task, noted)
    assert noted.events == [("ready", 0, 0.25), ("stepped", 0, 7.0), ("ready", 1, 0.25), ("stepped", 1, 7.0)]
    assert outcome.losses.tolist() == [7.0, 7.0]
    assert task.model.w.item() == 0.75


def test_a_run_that_is_broken_for_good_stops_and_has_no_outcome() -> None:
    task = descent(steps=300)
    plain = task.loss
    task.loss = lambda step: plain(step) * (math.nan if step == 50 else 1.0)
    outcome = train(task)
    assert len(outcome.losses) == 50 + LAST_STEPS
    assert math.isnan(outcome.metric)
    assert [done for done, _ in outcome.metric_curve] == [10, 20, 30, 40, 50, 60]


def test_a_loss_that_is_not_finite_does_not_end_a_run_whose_parameters_are() -> None:
    task = descent(lr=0.5, steps=100)
    plain = task.loss
    task.loss = lambda step: plain(step) + math.inf  # a constant: the gradient stays what it was
    outcome = train(task)
    assert len(outcome.losses) == 100
    assert outcome.metric == pytest.approx(0.0, abs=1e-9)


def test_remedies_and_twins_are_laid_over_the_settings() -> None:
    def recipe(**settings: object) -> dict[str, object]:
        return settings

    program = Program("a/b", "family", recipe, {"lr": 1.0, "depth": 3}, twin={"lr": 0.1}, remedies={"lr": {"lr": 0.2}})
    assert program.build(5) == {"seed": 5, "lr": 1.0, "depth": 3}
    assert program.build(5, program.twin) == {"seed": 5, "lr": 0.1, "depth": 3}
    assert program.build(5, program.remedies["lr"]) == {"seed": 5, "lr": 0.2, "depth": 3}


def test_unknown_causes_and_symptoms_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown causes \\['luck'\\]"):
        Program("a/b", "family", descent, {}, remedies={"luck": {}})
    with pytest.raises(ValueError, match="unknown symptom 'sad'"):
        Program("a/b", "family", descent, {}, symptom="sad")
