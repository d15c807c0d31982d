"""What watching costs: everything measured in one run, shown, and kept as JSON.

    python -m benchmarks --json cost.json

docs/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from benchmarks import cost, event_bytes, growth, histograms, memory, probing, table, training, workloads
from benchmarks.timing import machine, one_thread

ROUNDS = {"W1": 21, "W2": 5, "W3": 5, "W4": 4}
"""Samples of each method: the shorter a step, the more."""

PARTS = ("cost", "growth", "memory", "histogram", "bytes", "probe")


def measure(names: list[str], parts: list[str], rounds: int | None, directory: Path) -> dict[str, Any]:
    """All figures of ``parts``, the costs for the workloads ``names``."""
    results: dict[str, Any] = {"machine": machine(), "workloads": {}}
    for name in names if "cost" in parts else ():
        workload, samples = workloads.ALL[name](), rounds or ROUNDS[name]
        results["workloads"][name] = cost.measure(workload, samples, directory / name)
        if name in ("W1", "W4"):  # where a whole step is short enough to tell the difference
            found = training.slowdown(workload, samples, directory / f"{name} training")
            results.setdefault("slowdown", {})[name] = found
        del workload
    if "growth" in parts:
        results["growth_by_tensors"] = growth.by_tensors(growth.TENSORS, rounds or 7, directory)
        results["growth_by_megabytes"] = growth.by_size(growth.MEGABYTES, rounds or 7, directory)
    if "histogram" in parts:
        results["histogram"] = histograms.measure(histograms.ELEMENTS, rounds or 21, directory / "histogram")
    if "bytes" in parts:
        results["event_bytes"] = event_bytes.measure(event_bytes.LAYERS, event_bytes.STEPS, directory / "bytes")
    if "probe" in parts:
        probed = [name for name in names if name in probing.LIMITS]
        results["probed"] = {w: probing.ratio(workloads.ALL[w](), rounds or ROUNDS[w]) for w in probed}
        results["probed_peak_mb"] = {w: probing.peak_mb(w) for w in track(probed, description="probed".ljust(32))}
        results["unprobed_us"] = probing.unprobed_us()
    if "memory" in parts:
        for key, every in (("peak_mb", 0), ("peak_mb_histograms", 10)):
            results[key] = {w: memory.peak(w, every) for w in track(names, description=key.ljust(32))}
        with Console().status(f"memory over {memory.MARKS[-1]:,} steps: two or three minutes"):
            results["memory_over_steps"] = memory.over_steps()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(workloads.ALL), default=list(workloads.ALL))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--rounds", type=int, help="samples of each method; by default more of what is short")
    parser.add_argument("--readme", action="store_true", help="put the tables into the README")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    one_thread()
    torch.manual_seed(0)
    random.seed(0)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as directory:
        results = measure(arguments.workloads, arguments.parts, arguments.rounds, Path(directory))
    results["rounds"] = arguments.rounds
    console = Console(width=160)
    for found in table.tables(results):
        console.print(found)
    if arguments.readme:
        table.write_readme(table.markdown(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
