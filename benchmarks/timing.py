"""CPU time, and the processes that are measured apart."""

from __future__ import annotations

import multiprocessing
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from rich.progress import track

P = ParamSpec("P")
R = TypeVar("R")


def one_thread() -> None:
    """One torch thread: CPU time then is the work done, whatever the machine is busy with."""
    torch.set_num_threads(1)


def cpu_ms(action: Callable[[], object], times: int = 1) -> float:
    """CPU time of one call in ms, over all threads of the process."""
    start = time.process_time()
    for _ in range(times):
        action()
    return 1e3 * (time.process_time() - start) / times


def difference(measure: Callable[[bool], float]) -> float:
    """How much more ``measure(True)`` gives than ``measure(False)``, taken in random order."""
    found = {added: measure(added) for added in random.sample([True, False], 2)}
    return found[True] - found[False]


def shuffled(titles: Iterable[str]) -> list[str]:
    """``titles`` in random order, so that none always follows the same other."""
    listed = list(titles)
    return random.sample(listed, len(listed))


def medians(methods: Mapping[str, Callable[[], float]], rounds: int, description: str) -> dict[str, float]:
    """The median of what each method measures, over ``rounds`` rounds of all of them after one to warm up."""
    samples: dict[str, list[float]] = {title: [] for title in methods}
    for turn in track(range(rounds + 1), description=description.ljust(32)):
        for title in shuffled(methods):
            found = methods[title]()
            if turn:
                samples[title].append(found)
    return {title: statistics.median(values) for title, values in samples.items()}


def in_child(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function`` in a fresh process, whose memory holds nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), one_thread) as pool:
        return pool.submit(function, *args, **kwargs).result()


def machine() -> str:
    """Where and when a figure was measured."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}, {date.today()}"


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
