"""A run ends in the middle: what was written is readable, and another run goes on from its checkpoint."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import gradwatch as gw
from gradwatch import capture
from gradwatch.journal import TOGETHER
from tests.faults.processes import posix, result, started
from tests.faults.training import KINDS, OWN, Outcome, Training, assert_readable, total_norms, unwatched, warned
from tests.norm_table import read_norms

pytestmark = posix

by_kind = pytest.mark.parametrize("kind", KINDS)
by_own_kind = pytest.mark.parametrize("kind", OWN)


def train_for_ever(send: Callable[[int], None], kind: str, directory: Path) -> None:
    """Tell of every step whose record is given to the sink."""
    training = Training()
    with gw.Monitor(training.model, sinks=[KINDS[kind].sink(directory)]) as monitor:
        while True:
            training.run(training.steps + 1, monitor)
            send(training.steps)


@by_kind
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_a_run_is_ended_by_a_signal(kind: str, how: signal.Signals, tmp_path: Path) -> None:
    with started(train_for_ever, kind, tmp_path) as child:
        while child.get() < 30:
            pass
        os.kill(child.process.pid, how)
        done = max(child.sent(), default=30)
        assert child.exit_code() == (1 if how == signal.SIGINT else -how)  # 1: Python has unwound and said so
    # Unwinding, the monitor takes in what waits, and flushes the SummaryWriter.
    behind = 0 if how == signal.SIGINT else KINDS[kind].behind + TOGETHER - 1
    written = [step for step, _ in KINDS[kind].read(tmp_path)]
    assert done - behind <= len(written) <= done + 1
    missing = {*range(max(written))} - {*written}
    assert len(missing) <= (how == signal.SIGINT)  # the record during which Ctrl-C came, before those that waited
    assert_readable(kind, tmp_path, sorted({*written}))


class Interrupts:
    """A rule, a sink, a clip policy and a function in one, which Ctrl-C meets at step 3."""

    def __init__(self) -> None:
        self.calls = 0

    def interrupt(self, *given: Any) -> tuple[()]:
        self.calls += 1
        if self.calls == 4:
            signal.raise_signal(signal.SIGINT)
        return ()

    check = write = __call__ = interrupt

    def at_once(self, *given: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    def clip_(self, gradients: list[torch.Tensor], stats: Any) -> gw.ClipRecord:
        self.interrupt()
        return gw.ClipRecord("none", stats.total_norm, stats.total_norm, 1.0, 1.0)

    def close(self) -> None:
        """Nothing to do."""


PLACES = {
    "a rule": lambda part, sink: {"rules": [part], "sinks": [sink]},
    "a sink": lambda part, sink: {"sinks": [part, sink]},
    "a callback": lambda part, sink: {"sinks": [gw.sinks.Callback(part), sink]},
    "a clip policy": lambda part, sink: {"clip": part, "sinks": [sink]},
}


@by_own_kind
@pytest.mark.parametrize("place", PLACES)
def test_an_interrupt_gets_through_and_the_monitor_can_go_on(kind: str, place: str, tmp_path: Path) -> None:
    """As in a notebook: Ctrl-C stops the cell, and the next cell goes on with the same objects."""
    training = Training()
    monitor = gw.Monitor(training.model, **PLACES[place](Interrupts(), KINDS[kind].sink(tmp_path)))
    with pytest.raises(KeyboardInterrupt):
        training.run(10, monitor)
    assert training.steps == 3
    assert_readable(kind, tmp_path, range(3))
    training.update()  # the gradients of step 3 were there when it came
    with warned(messages := []), monitor:
        training.run(10, monitor)
    assert messages == []
    assert_readable(kind, tmp_path, [0, 1, 2, 4, 5, 6, 7, 8, 9])
    assert training.state() == unwatched(10)


def test_an_interrupt_within_the_measurement_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training()
    monitor = gw.Monitor(training.model, sinks=(), strict=True)
    with monkeypatch.context() as patch:
        patch.setattr(capture, "ParameterSample", Interrupts().at_once)
        with pytest.raises(KeyboardInterrupt):
            training.run(1, monitor)
    training.run(5, monitor)
    np.testing.assert_allclose(monitor.history.total_norm, total_norms(5), rtol=1e-6)


def lines_of(action: Callable[[], object], interrupt_at: tuple[str, int] | None = None) -> list[tuple[str, int]]:
    """The lines of gradwatch that ``action()`` runs through, each once; Ctrl-C comes before the one that is given."""
    root, found = str(Path(gw.__file__).parent), {}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        line = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and line not in found:
            found[line] = None
            if line == interrupt_at:
                raise KeyboardInterrupt
        return trace if line[0].startswith(root) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return list(found)


class Everywhere:
    """Finds something in every layer at every step."""

    def check(self, history: gw.History) -> list[gw.Alert]:
        step = int(history.steps[-1])
        return [
            gw.Alert(step, "everywhere", f"{name} {step}", gw.Severity.WARNING, 0.0, 0.0, name)
            for name in history.layers
        ]


def interrupted(directory: Path, line: tuple[str, int] | None) -> list[tuple[str, int]]:
    """Train 3 steps, with Ctrl-C at ``line`` within the first; the step that it stops is not taken again."""
    training, memory = Training(), gw.sinks.Memory()
    sinks = [*(KINDS[kind].sink(directory) for kind in OWN), memory]
    monitor = gw.watch(training.model, training.optimizer, rules=[Everywhere(), *gw.rules.default()], sinks=sinks)
    lines, norms = [], []
    with warned(messages := []), monitor:
        for step in range(3):
            training.backward()
            norms.append(training.total_norm())
            try:
                if step == 0:
                    lines = lines_of(training.optimizer.step, line)
                else:
                    training.optimizer.step()
            except KeyboardInterrupt:
                assert line is not None
            training.steps += 1
    assert messages == []
    recorded = monitor.history.total_norm
    assert len(recorded) in (2, 3), "a step was recorded twice, or not at all"
    np.testing.assert_allclose(recorded, norms[-len(recorded) :], rtol=1e-6)
    for found in ([norm for _, norm in KINDS[kind].read(directory)] for kind in OWN):
        np.testing.assert_allclose(found, norms[-len(found) :], rtol=1e-6)
        assert len(found) in (2, 3)
    return lines


KEEP_STATE = (
    "hooks.py",
    "monitor.py",
    "capture.py",
    "looks.py",
    "journal.py",
    "history.py",
    "alert_log.py",
    "appended_file.py",
    "event_file.py",
)


@pytest.mark.slow
def test_an_interrupt_may_come_at_any_line_of_a_step(tmp_path: Path) -> None:
    """The step that it meets is recorded or not, in whole; those after it are right."""
    (tmp_path / "whole").mkdir()
    lines = interrupted(tmp_path / "whole", None)
    lines = [line for line in lines if Path(line[0]).name in KEEP_STATE]
    assert len(lines) > 100
    for number, line in enumerate(lines):
        (directory := tmp_path / str(number)).mkdir()
        try:
            interrupted(directory, line)
        except AssertionError as error:
            raise AssertionError(f"interrupted at {line}") from error
        shutil.rmtree(directory)


@by_own_kind
def test_an_interrupt_within_a_block_of_watch_ends_it(kind: str, tmp_path: Path) -> None:
    training = Training()
    with (
        suppress(KeyboardInterrupt),
        gw.watch(training.model, training.optimizer, sinks=[KINDS[kind].sink(tmp_path)]) as monitor,
    ):
        training.run(5)
        signal.raise_signal(signal.SIGINT)
        training.run(1000)
    assert monitor.closed
    assert not training.optimizer._optimizer_step_pre_hooks
    assert not training.optimizer._optimizer_step_post_hooks
    training.run(8)
    assert_readable(kind, tmp_path, range(5))
    assert training.state() == unwatched(8)


def resume(send: Callable[[int], None], kind: str, directory: Path, steps: int) -> None:
    """Train to ``steps`` from the checkpoint in ``directory``, made every 5 steps, and tell of each step."""
    training, checkpoint = Training(), directory / "checkpoint"
    monitor = gw.Monitor(training.model, sinks=[KINDS[kind].sink(directory)])
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.steps = state["steps"]
        monitor.load_state_dict(state["monitor"])
    while training.steps < steps:
        training.run(training.steps + 1, monitor)
        if training.steps % 5 == 0:
            parts = {"model": training.model, "optimizer": training.optimizer, "monitor": monitor}
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**state, "steps": training.steps}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
        send(training.steps)


def resume_and_wait(send: Callable[[int], None], kind: str, directory: Path, steps: int) -> None:
    resume(send, kind, directory, steps)
    signal.pause()


def resumed(kind: str, directory: Path, steps: int) -> Outcome:
    """The end of :func:`resume`, without a monitor from there: the state of the training alone."""
    with warned(messages := []):
        resume(lambda step: None, kind, directory, steps)
    state = torch.load(directory / "checkpoint", weights_only=True)
    training = Training()
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    return Outcome(training.state(), messages, int(state["monitor"]["next_step"]))


@by_own_kind
def test_a_killed_run_resumes_from_its_checkpoint(kind: str, tmp_path: Path) -> None:
    with started(resume_and_wait, kind, tmp_path, 13) as child:
        while child.get() < 13:
            pass
        child.process.kill()
        assert child.exit_code() == -signal.SIGKILL
    assert_readable(kind, tmp_path, range(13))
    assert result(resumed, kind, tmp_path, 20) == Outcome(unwatched(20), [], 20)
    assert_readable(kind, tmp_path, [*range(13), *range(10, 20)])  # 10 to 12 were lost, and are taken again
    if kind == "TensorBoard":
        table = read_norms(tmp_path)
        assert table.steps.tolist() == list(range(20))
        np.testing.assert_allclose(np.linalg.norm(table.grad_norm, axis=1), total_norms(20), rtol=1e-6)
