"""Real processes, cheap ones: forked from a server that has imported torch once, and has no thread of the tests."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest

SECONDS = 30
"""What runs longer hangs: the slowest takes two."""

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and POSIX signals")


class Child:
    """A running process, and the line to it."""

    def __init__(self, process: Any, line: Connection) -> None:
        self.process, self._line = process, line

    def get(self) -> Any:
        """What it has sent next; raises EOFError when it has ended."""
        assert self._line.poll(SECONDS), "the process hangs"
        return self._line.recv()

    def sent(self) -> list[Any]:
        """All it has sent and nobody took, when it has ended."""
        found = []
        try:
            while True:
                found.append(self.get())
        except (EOFError, ConnectionResetError):
            return found

    def exit_code(self) -> int:
        self.process.join(SECONDS)
        assert self.process.exitcode is not None, "the process does not end"
        return int(self.process.exitcode)


@contextmanager
def started(function: Callable[..., None], *args: object) -> Iterator[Child]:
    """A process that runs ``function(send, *args)``, where ``send`` sends to the Child; ended when the block ends."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.warm"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(there, function, args))
    process.start()
    there.close()
    try:
        yield Child(process, here)
    finally:
        process.kill()
        process.join()
        here.close()


def result(function: Callable[..., Any], *args: object) -> Any:
    """What ``function(*args)`` returns in a process of its own; what it raises fails the test."""
    with started(_call, function, args) as child:
        returned, value = child.get()
        assert returned, value
        assert child.exit_code() == 0
        return value


def _call(send: Callable[[object], None], function: Callable[..., Any], args: tuple[object, ...]) -> None:
    try:
        send((True, function(*args)))
    except BaseException:
        send((False, traceback.format_exc()))


def _run(line: Connection, function: Callable[..., None], args: tuple[object, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    function(line.send, *args)
