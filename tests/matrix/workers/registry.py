"""The cases that run in several processes, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import torch.distributed as dist

GLOO_TIMEOUT = 20
"""Seconds that a rank waits for the others."""


class Case(NamedTuple):
    run: Callable[[], Any]
    worlds: tuple[int, ...]
    alone: bool


CASES: dict[str, Case] = {}


def case(*worlds: int, alone: bool = False) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Have a function run on every rank of process groups of these sizes; what it returns must be JSON's own types.

    Args:
        worlds: numbers of ranks.
        alone: whether it breaks the process group: then it gets processes of its own, and starts their group itself.
    """

    def noted(function: Callable[[], Any]) -> Callable[[], Any]:
        CASES[function.__name__] = Case(function, worlds, alone)
        return function

    return noted


def start_group(timeout: float = GLOO_TIMEOUT) -> None:
    """Join this rank to its process group."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    limit = timedelta(seconds=timeout)
    init_method = f"file://{os.environ['MATRIX_STORE']}"
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=world, timeout=limit)
