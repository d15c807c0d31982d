"""What the user has written raises: the rest of the monitor works on, and training as if nobody watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from tests.faults.training import Training, total_norms, unwatched, warned

STEPS = 12


class Broken:
    """Whatever it is used for, it raises from its fourth call on."""

    def __init__(self) -> None:
        self.calls = 0

    def fail(self, *given: Any) -> Any:
        self.calls += 1
        if self.calls >= 4:
            raise ValueError("of the user")
        return ()

    check = write = __call__ = fail

    def close(self) -> None:
        """Nothing to do."""


class FailsLate(Broken):
    """A rule that is a generator: it raises when it is run through, not when it is called."""

    def check(self, history: gw.History) -> Iterator[gw.Alert]:
        yield from self.fail()


class NoAlerts(Broken):
    """A rule that gives what is no alert."""

    def check(self, history: gw.History) -> list[str]:
        return ["vanishing"]


class NoList(Broken):
    """A rule without a return statement."""

    def check(self, history: gw.History) -> None:
        return None


class DoesNotClose(gw.sinks.Memory):
    """A sink that works, but for its end."""

    def close(self) -> None:
        raise ValueError("of the user")


class WordlessError(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError


class BreaksWordlessly(Broken):
    """A sink whose error has no words."""

    def write(self, report: gw.Report) -> None:
        raise WordlessError


class Clips(Broken):
    """A clip policy that leaves the gradients as they are, until it raises."""

    def clip_(self, gradients: list[torch.Tensor], stats: Any) -> gw.ClipRecord:
        self.fail()
        return gw.ClipRecord("none", stats.total_norm, stats.total_norm, 1.0, 1.0)


class Returns:
    """A clip policy that leaves the gradients as they are, and returns ``value``."""

    def __init__(self, value: object) -> None:
        self.value = value

    def clip_(self, gradients: list[torch.Tensor], stats: Any) -> Any:
        return self.value


class Reports:
    """A rule of the user's own that works."""

    def check(self, history: gw.History) -> list[gw.Alert]:
        step = int(history.steps[-1])
        return [gw.Alert(step, "every_step", f"{step}", gw.Severity.INFO, 0.0, 0.0, "a step")]


RAISES = "ValueError: of the user"
NOT_CLIPPED = "this step is clipped in part or not at all"
CASES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "rule": (lambda: {"rules": [Broken()]}, f"rule Broken failed, it is dropped: {RAISES}"),
    "rule, a generator": (lambda: {"rules": [FailsLate()]}, f"rule FailsLate failed, it is dropped: {RAISES}"),
    "rule, no alerts": (
        lambda: {"rules": [NoAlerts()]},
        "rule NoAlerts failed, it is dropped: TypeError: check() must give Alerts, got 'vanishing'",
    ),
    "rule, nothing": (
        lambda: {"rules": [NoList()]},
        "rule NoList failed, it is dropped: TypeError: 'NoneType' object is not iterable",
    ),
    "sink": (lambda: {"sinks": [Broken()]}, f"sink Broken failed, it is dropped: {RAISES}"),
    "sink, close": (
        lambda: {"sinks": [DoesNotClose()]},
        f"sink DoesNotClose failed, what it had not written is lost: {RAISES}",
    ),
    "sink, without words": (
        lambda: {"sinks": [BreaksWordlessly()]},
        "sink BreaksWordlessly failed, it is dropped: WordlessError: (no message: str() of the error failed)",
    ),
    "callback": (lambda: {"sinks": [gw.sinks.Callback(Broken())]}, f"sink Callback failed, it is dropped: {RAISES}"),
    "clip policy": (lambda: {"clip": Clips()}, f"clip Clips failed, {NOT_CLIPPED}: {RAISES}"),
    "clip policy, no record": (
        lambda: {"clip": Returns("a word")},
        f"clip Returns failed, {NOT_CLIPPED}: TypeError: clip_() must give a ClipRecord, got 'a word'",
    ),
    "clip policy, no numbers": (
        lambda: {"clip": Returns(gw.ClipRecord("none", None, None, None, None))},
        f"clip Returns failed, {NOT_CLIPPED}: TypeError: clip_() must give numbers in its ClipRecord, got None",
    ),
}


def by_step(training: Training, **arguments: Any) -> gw.Monitor:
    with gw.Monitor(training.model, **arguments) as monitor:
        training.run(STEPS, monitor)
    return monitor


def by_hooks(training: Training, **arguments: Any) -> gw.Monitor:
    with gw.watch(training.model, training.optimizer, **arguments) as monitor:
        training.run(STEPS)
    return monitor


@pytest.mark.parametrize("drive", [by_step, by_hooks])
@pytest.mark.parametrize("case", CASES)
def test_one_part_fails_and_the_others_work_on(case: str, drive: Callable[..., gw.Monitor]) -> None:
    make, words = CASES[case]
    given, training, memory = make(), Training(), gw.sinks.Memory()
    given = {**given, "rules": [*given.get("rules", ()), Reports()], "sinks": [*given.get("sinks", ()), memory]}
    with warned(messages := []):
        monitor = drive(training, **given)
    assert messages == [f"GradwatchWarning: gradwatch: {words}"]
    assert training.state() == unwatched(STEPS)
    assert [report.stats.step for report in memory.reports] == list(range(STEPS))
    assert [len(report.alerts) for report in memory.reports] == [1] * STEPS
    np.testing.assert_allclose(monitor.history.total_norm, total_norms(STEPS), rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_strict_lets_it_through(case: str) -> None:
    training = Training()
    with pytest.raises((ValueError, TypeError, WordlessError)):
        by_step(training, **{"sinks": (), **CASES[case][0]()}, strict=True)


class Raises(nn.Module):
    """Passes its input on, but at the calls that it is told of."""

    def __init__(self, *calls: int) -> None:
        super().__init__()
        self.calls, self.count = calls, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        if self.count in self.calls:
            raise ValueError("of the model")
        return x


def train_with_retries(raises: Raises, watch: bool) -> tuple[bytes, gw.Monitor | None]:
    """A loop that tries a batch again when the model raises, as after running out of memory; with a closure."""
    training = Training()
    training.model.insert(1, raises)
    monitor = gw.watch(training.model, training.optimizer, sinks=(), strict=True) if watch else None

    def closure() -> float:
        training.backward()
        return 0.0

    while training.steps < STEPS:
        try:
            training.optimizer.step(closure)
        except ValueError:
            continue
        training.steps += 1
    return training.state(), monitor


def test_the_model_raises() -> None:
    plain, _ = train_with_retries(Raises(), watch=False)
    state, monitor = train_with_retries(Raises(1, 4, 5, 9), watch=True)
    assert state == plain == unwatched(STEPS)
    assert monitor is not None
    assert monitor.alerts == []
    np.testing.assert_allclose(monitor.history.total_norm, total_norms(STEPS), rtol=1e-6)


def test_the_model_raises_between_the_backwards_of_an_accumulation() -> None:
    """The loop drops the batch: what was accumulated goes away with ``zero_grad``, and is no step."""
    training, raises = Training(), Raises(3, 7)
    training.model.insert(1, raises)
    with gw.watch(training.model, training.optimizer, sinks=(), strict=True) as monitor:
        while training.steps < STEPS:
            try:
                training.backward()
            except ValueError:
                continue
            training.update()
    assert training.state() == unwatched(STEPS)
    np.testing.assert_allclose(monitor.history.total_norm, total_norms(STEPS), rtol=1e-6)
