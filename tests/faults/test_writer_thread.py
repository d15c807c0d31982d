"""A SummaryWriter that is shared has a thread, which dies alone: the monitor says so once, and waits for nothing."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

import gradwatch as gw
from tests.faults.processes import posix, result
from tests.faults.training import Outcome, Training, assert_readable, unwatched, warned

STEPS = 30
"""More than the 10 events that the queue of a SummaryWriter takes before it makes the training wait."""


@pytest.fixture
def thread_errors(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """What threads have died of; without this, Python prints it and pytest warns of it."""
    found: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(args.exc_type))
    return found


def writer_thread(writer: SummaryWriter) -> Any:
    return writer._get_file_writer().event_writer._async_writer._worker


def train(writer: Any, fault: Callable[[], object], before: int = 5) -> Outcome:
    """Train with a ``writer`` to which ``fault()`` happens after some steps."""
    training, memory = Training(), gw.sinks.Memory()
    sinks = [gw.sinks.TensorBoard(writer), memory]
    with warned(messages := []), gw.Monitor(training.model, sinks=sinks) as monitor:
        training.run(before, monitor)
        fault()
        training.run(STEPS, monitor)
    return Outcome(training.state(), messages, len(memory.reports))


def test_its_directory_is_removed(tmp_path: Path, thread_errors: list[type[BaseException]]) -> None:
    def remove() -> None:
        writer.flush()
        shutil.rmtree(tmp_path / "run")
        writer.add_scalar("mine", 1.0)  # the thread dies of it
        writer_thread(writer).join()

    writer = SummaryWriter(tmp_path / "run")
    outcome = train(writer, remove)
    assert thread_errors == [FileNotFoundError]
    (message,) = outcome.warnings
    words = "GradwatchWarning: gradwatch: sink TensorBoard failed, it is dropped: FileNotFoundError: [Errno 2]"
    assert message.startswith(words)
    assert outcome[::2] == (unwatched(STEPS), STEPS)


def test_its_thread_dies_of_one_event(tmp_path: Path, thread_errors: list[type[BaseException]]) -> None:
    def die() -> None:
        writer.flush()
        writer._get_file_writer().event_writer._async_writer.write("no bytes")
        writer_thread(writer).join()

    outcome = train(writer := SummaryWriter(tmp_path), die)
    assert thread_errors == [TypeError]
    (message,) = outcome.warnings
    assert message.startswith("GradwatchWarning: gradwatch: sink TensorBoard failed, it is dropped: TypeError: ")
    assert outcome[::2] == (unwatched(STEPS), STEPS)
    assert_readable("SummaryWriter", tmp_path, range(5))


def test_its_thread_dies_after_the_last_step(tmp_path: Path, thread_errors: list[type[BaseException]]) -> None:
    def die() -> None:
        writer.flush()
        writer._get_file_writer().event_writer._async_writer._byte_queue.put("no bytes")
        writer_thread(writer).join()

    outcome = train(writer := SummaryWriter(tmp_path), die, before=STEPS)
    (message,) = outcome.warnings
    words = "GradwatchWarning: gradwatch: sink TensorBoard failed, what it had not written is lost: TypeError: "
    assert message.startswith(words)
    assert_readable("SummaryWriter", tmp_path, range(STEPS))


class Silent:
    """A writer whose thread has ended without a word, and whose queue then never takes anything, as in tensorboardX."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        thread = threading.Thread(target=self.ended.wait)
        thread.start()
        self._writer = SimpleNamespace(event_writer=SimpleNamespace(_worker=thread), add_summary=self.add)

    def end(self) -> None:
        self.ended.set()
        self._writer.event_writer._worker.join()

    def add(self, summary: Any, step: int) -> None:
        assert not self.ended.is_set(), "a real one would wait for ever"

    flush = add

    def _get_file_writer(self) -> Any:
        return self._writer


def test_its_thread_has_ended_without_a_word() -> None:
    outcome = train(writer := Silent(), writer.end)
    assert outcome.warnings == [
        "GradwatchWarning: gradwatch: sink TensorBoard failed, it is dropped: "
        "OSError: the thread of the SummaryWriter has ended"
    ]
    assert outcome[::2] == (unwatched(STEPS), STEPS)


@pytest.mark.parametrize("before", [5, STEPS], ids=["in the middle", "after the last step"])
def test_its_owner_closes_it(before: int, tmp_path: Path) -> None:
    """A SummaryWriter that is closed opens another file when it gets something to write, and only then."""
    outcome = train(writer := SummaryWriter(tmp_path), lambda: writer.close(), before)
    writer.close()
    assert outcome == Outcome(unwatched(STEPS), [], STEPS)
    assert_readable("SummaryWriter", tmp_path, range(STEPS))
    assert len(list(tmp_path.iterdir())) == (1 if before == STEPS else 2)


def fork_while_it_writes(directory: Path) -> int:
    """Have a fork close the monitor while the thread has something in its hands, and give its exit status."""
    writer, training, may_write = SummaryWriter(directory), Training(), threading.Event()
    records = writer._get_file_writer().event_writer._async_writer._writer
    write = records.write
    with gw.Monitor(training.model, sinks=[gw.sinks.TensorBoard(writer)]) as monitor:
        training.run(3, monitor)
        writer.flush()
        records.write = lambda data: (may_write.wait(), write(data))
        training.run(6, monitor)
        child = os.fork()
        if not child:
            monitor.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        may_write.set()
        training.run(STEPS, monitor)
    writer.close()
    return status


@posix
def test_a_fork_does_not_wait_for_it(tmp_path: Path) -> None:
    """The fork has its queue, but not its thread: waiting for it would never end."""
    assert result(fork_while_it_writes, tmp_path) == 0
    assert_readable("SummaryWriter", tmp_path, range(STEPS))
