"""Asks the launcher for the cases of a process group, once for each size, and hands out what the ranks returned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Ranks:
    """What each case returned on each rank: ``ranks(world)[case]`` is a list by rank.

    A case that failed, hung or crashed on a rank fails the test that asks for it; the other cases have their results.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._worlds: dict[int, dict[str, Any]] = {}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (open as long as the process runs)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with the ranks that may be left
            self._process.communicate()
        self._log.close()

    def __call__(self, world: int) -> Results:
        if world not in self._worlds:
            process = self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{world}\n")
            process.stdin.flush()
            self._worlds[world] = json.loads(process.stdout.readline() or "{}")
        self._log.seek(0)
        return Results(self._worlds[world], self._log.read())

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.matrix.workers"],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                start_new_session=True,
            )
        return self._process


class Results:
    """The outcomes of the cases of one process group."""

    def __init__(self, outcomes: dict[str, Any], log: str) -> None:
        self._outcomes, self._log = outcomes, log

    def __getitem__(self, case: str) -> list[Any]:
        """What ``case`` returned, by rank."""
        return [outcome["returned"] for outcome in self.outcomes(case)]

    def outcomes(self, case: str, but: tuple[int, ...] = ()) -> list[Any]:
        """The outcomes of the ranks of which all, ``but`` those that are meant not to, came to their end."""
        if case not in self._outcomes:
            pytest.fail(f"{case} was not run; the ranks said:\n{self._log[-3000:]}")
        by_rank = self._outcomes[case]
        wrong = [
            f"rank {rank}: {'never came to its end' if outcome is None else outcome['failed']}"
            for rank, outcome in enumerate(by_rank)
            if rank not in but and (outcome is None or "failed" in outcome)
        ]
        if wrong:
            pytest.fail("\n".join([*wrong, "what the ranks printed:", self._log[-3000:]]))
        return [outcome for rank, outcome in enumerate(by_rank) if rank not in but]
