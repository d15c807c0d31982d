"""A process is forked from one that has a monitor: it writes nothing into the parent's files, and hangs on nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

import gradwatch as gw
from tests.faults.processes import posix, result
from tests.faults.training import KINDS, OWN, Outcome, Training, assert_readable, dropped, unwatched, warned

pytestmark = posix

STEPS = 20
AT = 8
"""The step before which it is forked; with AT steps in the queue of a SummaryWriter, it could take no more than two."""

by_kind = pytest.mark.parametrize("kind", KINDS)


def trains_on(training: Training, monitor: gw.Monitor) -> None:
    """Trains on like the parent, then closes the monitor."""
    training.run(STEPS, monitor)
    monitor.close()


def closes(training: Training, monitor: gw.Monitor) -> None:
    """Flushes and closes the monitor, as leaving its block does."""
    monitor.flush()
    monitor.close()


def ends(training: Training, monitor: gw.Monitor) -> None:
    """Ends like a program, with all that is done at its end."""
    sys.exit()


def fits_again(training: Training, monitor: gw.Monitor) -> None:
    """Closes the monitor, and gives the same sinks to another one."""
    monitor.close()
    with gw.Monitor(training.model, sinks=monitor._journal.sinks) as second:
        training.run(STEPS, second)


class Way(NamedTuple):
    """What comes of it in the fork."""

    steps: int
    warnings: int


WAYS = {trains_on: Way(STEPS, 1), closes: Way(AT, 0), ends: Way(AT, 0), fits_again: Way(STEPS, 1)}


def in_fork(act: Callable[[Training, gw.Monitor], None], training: Training, monitor: gw.Monitor) -> list[str]:
    """The warnings that ``act(training, monitor)`` gives in a fork of this process, and the bits it has trained."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            with warned(messages := []), suppress(SystemExit), monitor:
                act(training, monitor)
            os.write(sender, json.dumps([*messages, training.state().hex()]).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(sender)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(receiver) as words:
        found: list[str] = json.load(words)
    return found


def fork(kind: str, directory: Path, act: Callable[[Training, gw.Monitor], None]) -> Outcome:
    """Train, have a fork ``act`` meanwhile, and tell of both."""
    training, memory = Training(), gw.sinks.Memory()
    monitor = gw.Monitor(training.model, sinks=[KINDS[kind].sink(directory), memory])
    with warned(messages := []), monitor:
        training.run(AT, monitor)
        told = in_fork(act, training, monitor)
        training.run(STEPS, monitor)
    return Outcome(training.state(), messages, len(memory.reports), told)


@by_kind
@pytest.mark.parametrize("act", WAYS, ids=lambda act: act.__name__)
def test_a_fork_leaves_the_files_of_its_parent_alone(kind: str, act: Callable[..., None], tmp_path: Path) -> None:
    outcome = result(fork, kind, tmp_path, act)
    assert outcome[:3] == (unwatched(STEPS), [], STEPS)
    *messages, state = outcome.more
    assert [message.partition(": RuntimeError: ")[0] for message in messages] == [
        f"GradwatchWarning: {dropped(kind)}"
    ] * WAYS[act].warnings
    assert all(message.endswith("the process from which this one was forked") for message in messages)
    assert bytes.fromhex(state) == unwatched(WAYS[act].steps)
    assert_readable(kind, tmp_path, range(STEPS))
    assert len(list(tmp_path.iterdir())) == 1


def first_in_a_fork(kind: str, directory: Path) -> list[str]:
    """The monitor is made here, and a fork alone uses it."""
    training = Training()
    return in_fork(trains_on, training, gw.Monitor(training.model, sinks=[KINDS[kind].sink(directory)]))


@pytest.mark.parametrize("kind", OWN)
def test_a_fork_that_is_the_first_to_write_writes(kind: str, tmp_path: Path) -> None:
    assert result(first_in_a_fork, kind, tmp_path) == [unwatched(STEPS).hex()]
    assert_readable(kind, tmp_path, range(STEPS))
    assert len(list(tmp_path.iterdir())) == 1


class Numbers(Dataset):  # type: ignore[type-arg]
    """One batch a step, with the number of the process that made it; ``more`` goes to the workers with it."""

    def __init__(self, more: object) -> None:
        self.more = more

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, os.getpid()


def with_workers(kinds: Sequence[str], directory: Path, start: str, persistent: bool) -> Outcome:
    """Two epochs with two workers, which start and end while the monitor is there."""
    training, memory, makers = Training(), gw.sinks.Memory(), set()
    sinks = [KINDS[kind].sink(directory / kind) for kind in kinds]
    loader = DataLoader(
        Numbers(sinks), num_workers=2, multiprocessing_context=start, persistent_workers=persistent, batch_size=None
    )
    with warned(messages := []):
        with gw.watch(training.model, training.optimizer, sinks=[*sinks, memory]):
            for _ in range(2):
                for _, maker in loader:
                    makers.add(int(maker))
                    training.run(training.steps + 1)
        del loader
    return Outcome(training.state(), messages, len(memory.reports), len(makers - {os.getpid()}))


def assert_untouched(kinds: Sequence[str], directory: Path, persistent: bool, outcome: Outcome) -> None:
    assert outcome == Outcome(unwatched(2 * STEPS), [], 2 * STEPS, 2 if persistent else 4)
    for kind in kinds:
        assert_readable(kind, directory / kind, range(2 * STEPS))
        assert len(list((directory / kind).iterdir())) == 1


@pytest.mark.parametrize("persistent", [False, True], ids=["new workers", "persistent workers"])
def test_workers_that_are_forked(persistent: bool, tmp_path: Path) -> None:
    outcome = result(with_workers, (*KINDS,), tmp_path, "fork", persistent)
    assert_untouched((*KINDS,), tmp_path, persistent, outcome)


@pytest.mark.slow
def test_workers_that_are_spawned_and_sent_the_sinks(tmp_path: Path) -> None:
    outcome = result(with_workers, OWN, tmp_path, "spawn", True)
    assert_untouched(OWN, tmp_path, True, outcome)


def test_a_writer_may_not_be_sent_elsewhere(tmp_path: Path) -> None:
    """It holds a thread; a logdir in its place may be sent."""
    sink = gw.sinks.TensorBoard(SummaryWriter(tmp_path))
    with pytest.raises(TypeError, match="cannot pickle"):
        torch.save(sink, tmp_path / "sink")
    sink._writer.close()
