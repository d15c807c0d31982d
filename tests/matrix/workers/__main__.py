"""Runs cases in real processes on gloo: ``python -m tests.matrix.workers``.

Importing torch takes seconds, so one process does it and forks the ranks. It reads the size of a process group from
each line of its input and answers with a line of JSON: what each case returned on each rank, or how it failed there.
A case that fails or hangs ends its process group, and the cases after it go on in a new one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch._dynamo  # noqa: F401  (else every rank imports it, in its first backward)
import torch.distributed as dist

from gradwatch.faults import GradwatchWarning
from tests.matrix.workers import faults, placements, policies, replicas, sharded  # noqa: F401  (they note their cases)
from tests.matrix.workers.registry import CASES, start_group

SILENCE = 40
"""Seconds without a word from any rank after which all are killed."""

Outcome = dict[str, Any]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the ranks print is no answer
    for line in sys.stdin:
        answers.write(json.dumps(run_world(int(line))) + "\n")
        answers.flush()


def run_world(world: int) -> dict[str, list[Outcome | None]]:
    """Every case of a world of that size: for each rank {"returned", "warned", "seconds"} or {"failed"}."""
    names = [name for name, case in CASES.items() if world in case.worlds]
    groups = [[name for name in names if not CASES[name].alone]]
    groups += [[name] for name in names if CASES[name].alone]
    outcomes: dict[str, list[Outcome | None]] = {}
    for group in groups:
        while group:
            found = run_group(group, world)
            outcomes |= found
            group = group[max(1, len(found)) :]
    return outcomes


def run_group(names: list[str], world: int) -> dict[str, list[Outcome | None]]:
    """The cases up to the first that fails on a rank; None for a rank that never came to its end."""
    context = get_context("fork")
    outcomes: dict[str, list[Outcome | None]] = {names[0]: [None] * world}
    with tempfile.TemporaryDirectory() as directory:
        processes, ranks = [], {}
        for rank in range(world):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=run_rank, args=(names, rank, world, f"{directory}/store", writer))
            process.start()
            writer.close()
            processes.append(process)
            ranks[reader] = rank
        while ranks and (ready := wait(list(ranks), timeout=SILENCE)):
            for reader in ready:
                try:
                    name, outcome = reader.recv()
                except EOFError:
                    del ranks[reader]
                else:
                    outcomes.setdefault(name, [None] * world)[ranks[reader]] = outcome
        if ranks:
            hung = names[sum(None not in of_ranks for of_ranks in outcomes.values())]
            outcomes.setdefault(hung, [None] * world)
        for process in processes:
            if ranks:
                process.kill()
            process.join()
    return outcomes


def run_rank(names: list[str], rank: int, world: int, store: str, writer: Connection) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MATRIX_STORE=store)
    alone = CASES[names[0]].alone
    if not alone:
        start_group()
    for name in names:
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True, action="always") as caught:
                returned = CASES[name].run()
            ours = [str(w.message) for w in caught if issubclass(w.category, GradwatchWarning)]
            outcome = {"returned": returned, "warned": ours, "seconds": time.perf_counter() - start}
        except Exception:
            outcome = {"failed": traceback.format_exc()}
        writer.send((name, outcome))
        if "failed" in outcome or alone:
            break
        with suppress(RuntimeError):
            dist.barrier()
            continue
        break  # another rank failed
    writer.close()
    os._exit(0)  # a group in which a rank failed cannot be taken down in order


if __name__ == "__main__":
    main()
