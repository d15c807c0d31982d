"""What watching costs, beside what a user would pick instead, all in one process and interleaved.

    python -m benchmarks.cost --json cost.json

The measure is CPU time of the whole process with one torch thread, so that work in background threads counts and the
load of the machine does not. One sample is a block of steps on the gradients of a real backward; blocks of all methods
follow each other in random order; the median over the rounds is what is shown.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import monitors, workloads

START, END = "<!-- cost -->", "<!-- /cost -->"

BLOCK = 10
"""Steps in one sample, so that what happens every tenth step happens once in it."""

LOGGING = {
    "gradwatch": (monitors.Gradwatch, 0),
    "gradwatch, histograms": (monitors.Gradwatch, BLOCK),
    "Lightning grad_norm + log_metrics": (monitors.Lightning, 0),
    "Ignite scalars": (monitors.Ignite, 0),
    "Ignite scalars + histograms": (monitors.Ignite, BLOCK),
    "by hand: norm().item(), add_scalar": (monitors.HandWritten, 0),
    "by hand, add_histogram": (monitors.HandWritten, BLOCK),
}
CLIPPING = {
    "clip_grad_norm_": (monitors.ClipOnly, 0),
    "gradwatch + GlobalNorm": (monitors.GradwatchClip, 0),
    "clip_grad_norm_, clips": (monitors.ClipAlways, 0),
    "gradwatch + GlobalNorm, clips": (monitors.GradwatchClipAlways, 0),
}


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_ms(action: Callable[[], None], times: int) -> float:
    """CPU time of one call in ms, over all threads of the process."""
    start = time.process_time()
    for _ in range(times):
        action()
    return 1e3 * (time.process_time() - start) / times


def measure(name: str, rounds: int, directory: Path) -> dict[str, Any]:
    """The medians of one workload in ms per step, and the bytes that gradwatch writes per step."""
    workload = workloads.ALL[name]()
    workload.backward()
    flat = torch.randn(sum(p.numel() for p in workload.parameters))
    running = {
        title: kind(workload, directory / str(i), histogram_every)
        for i, (title, (kind, histogram_every)) in enumerate({**LOGGING, **CLIPPING}.items())
    }
    samples: dict[str, list[float]] = {title: [] for title in ("training step", "one streaming read", *running)}
    for turn in range(rounds + 1):
        step = cpu_ms(lambda: (workload.backward(), workload.optimizer.step()), times=1)
        workload.backward()
        kept = [p.grad.clone() for p in workload.parameters]
        read = cpu_ms(lambda: flat.sum(), times=BLOCK)
        found = {"training step": step, "one streaming read": read}
        for title in random.sample(list(running), len(running)):
            monitor = running[title]

            def block(monitor: monitors.Monitor = monitor) -> None:
                for _ in range(BLOCK):
                    monitor.step()
                monitor.flush()

            found[title] = cpu_ms(block, times=1) / BLOCK
            for p, gradient in zip(workload.parameters, kept):
                p.grad.copy_(gradient)
        if turn:  # the first round warms up
            for title, ms in found.items():
                samples[title].append(ms)
    for monitor in running.values():
        monitor.close()
    written = sum(path.stat().st_size for path in (directory / "0").rglob("*tfevents*"))
    return {
        "title": workload.title,
        "tensors": len(workload.parameters),
        "megabytes": workload.megabytes,
        "ms": {title: statistics.median(values) for title, values in samples.items()},
        "event_bytes_per_step": written / ((rounds + 1) * BLOCK),
    }


def show(results: dict[str, dict[str, Any]]) -> Table:
    """One row per method: ms per step, and its share of the training step."""
    table = Table(title="CPU ms per step, and share of a training step")
    table.add_column("")
    for name, result in results.items():
        table.add_column(f"{name}\n{result['tensors']} tensors\n{result['megabytes']:.0f} MB", justify="right")
    for title in next(iter(results.values()))["ms"]:
        cells = []
        for result in results.values():
            ms = result["ms"]
            share = "" if title == "training step" else f"  {ms[title] / ms['training step']:6.1%}"
            cells.append(f"{ms[title]:.2f}{share}")
        table.add_row(title, *cells)
    return table


def markdown(results: dict[str, dict[str, Any]], machine: str) -> str:
    """The same as a table for the README."""
    heads = [f"{r['title']} ({r['tensors']} tensors, {r['megabytes']:.0f} MB)" for r in results.values()]
    lines = ["| CPU ms per step | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for title in next(iter(results.values()))["ms"]:
        cells = []
        for result in results.values():
            ms, step = result["ms"][title], result["ms"]["training step"]
            cells.append(f"{ms:.1f}" if title == "training step" else f"{ms:.2f} ({ms / step:.1%})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    sizes = ", ".join(f"{r['event_bytes_per_step']:.0f}" for r in results.values())
    return "\n".join([*lines, "", f"Event bytes per step: {sizes}. {machine}. Made by `make bench`."])


def write_readme(text: str) -> None:
    """Put ``text`` between the marks in the README."""
    readme = Path(__file__).parent.parent / "README.md"
    before, rest = readme.read_text().split(START)
    _, after = rest.split(END)
    readme.write_text(f"{before}{START}\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(workloads.ALL), default=list(workloads.ALL))
    parser.add_argument("--rounds", type=int, default=7, help="samples of each method")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    warnings.filterwarnings("ignore", category=FutureWarning)
    results = {}
    for name in track(arguments.workloads, description="measuring"):
        with tempfile.TemporaryDirectory() as directory:
            results[name] = measure(name, arguments.rounds, Path(directory))
    Console(width=140).print(show(results))
    machine = f"{processor()}, {torch.get_num_threads()} thread, torch {torch.__version__}, {date.today()}"
    print(machine)
    if arguments.readme:
        write_readme(markdown(results, machine))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "workloads": results}, indent=1))


if __name__ == "__main__":
    main()
