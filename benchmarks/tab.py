"""How long the Gradients tab takes on a long run of a large model, on both of TensorBoard's data servers.

    python -m benchmarks.tab --docs docs/tensorboard.md

writes 100,000 steps of 300 layers, and 5,000 of 3,000, with the sink, and asks a real TensorBoard what the page asks.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

import gradwatch as gw
from benchmarks.timing import machine
from gradwatch import tags
from gradwatch.records import Alert, ClipRecord, Report, Severity, StepStats
from gradwatch.report.summary import summarize
from gradwatch.tensorboard_plugin.tables import read

SIZES = ((300, 100_000), (3_000, 5_000))
"""Layers and steps of each log."""

SPIKES = 200
"""Alerts of one layer each, evenly spread."""

FIRST, ZOOM, MEGABYTES = 3.0, 0.5, 2.0
"""Goals: seconds to the first picture, seconds to a zoom, size of an answer."""

START, END = "<!-- tab -->", "<!-- /tab -->"


def write(directory: Path, layers: int, steps: int) -> dict[str, float]:
    """A run with clipping, alerts, and every 100 steps a sample with histograms. Returns its cost per step."""
    rng = np.random.default_rng(0)
    names = tuple(f"transformer.h.{i // 6}.{part}" for i, part in zip(range(layers), 1000 * PARTS))
    usual, has_grad = 10.0 ** rng.uniform(-4, 1, layers), np.arange(layers) % 50 != 49
    sink, cpu = gw.sinks.TensorBoard(directory), 0.0
    for step in range(steps):
        norm = np.where(has_grad, usual * np.exp(rng.normal(0, 0.3, layers)), 0.0)
        alerts: tuple[Alert, ...] = ()
        if step % (steps // SPIKES) == 77 % (steps // SPIKES):
            norm[step % layers] *= 1e4
            alerts = (Alert(step, "spike", names[step % layers], Severity.WARNING, 1e4, 1e2, "a spike of one step"),)
        total = float(np.linalg.norm(norm))
        stats = StepStats(step, names, norm, has_grad, total, **(_sample(rng, norm) if step % 100 == 0 else {}))
        clip = ClipRecord("global_norm", total, min(total, 30.0), min(1.0, 30.0 / total), 30.0, clipped=total > 30.0)
        report = Report(f"healthy: {step + 1} steps", Severity.INFO, alerts, stats=stats, clip=clip)
        before = time.process_time()
        sink.write(report)
        cpu += time.process_time() - before
    sink.close()
    size = sum(path.stat().st_size for path in directory.iterdir())
    return {"write_ms": 1e3 * cpu / steps, "bytes": size / steps}


PARTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def _sample(rng: np.random.Generator, norm: np.ndarray) -> dict[str, Any]:
    """Histograms of twelve buckets around each norm, as of a normal gradient."""
    histogram = np.zeros((len(norm), len(tags.HISTOGRAM_EDGES) - 1), np.int64)
    middle = np.clip(4 * (np.log10(np.maximum(norm, 1e-9)) + 14), 0, histogram.shape[1] - 12).astype(int)
    histogram[np.arange(len(norm))[:, None], middle[:, None] + np.arange(12)] = rng.integers(1, 1000, (len(norm), 12))
    return {
        "max_abs": norm / 3,
        "zero_fraction": np.zeros(len(norm)),
        "nonfinite": np.zeros(len(norm), np.int64),
        "param_norm": norm + 1,
        "update_ratio": np.full(len(norm), 1e-3),
        "histogram": histogram,
    }


def without_server(directory: Path) -> dict[str, float]:
    """Seconds to read the run, and for `gradwatch report` after that."""
    begun = time.perf_counter()
    tables = read(directory)
    done = time.perf_counter()
    summarize("run", tables)
    return {"read_s": done - begun, "report_s": time.perf_counter() - begun}


def with_server(logdir: Path, layers: int, steps: int, fast: bool) -> dict[str, float]:
    """Seconds that TensorBoard takes to load the run, and then for each answer; the size of the largest in MB."""
    with _tensorboard(logdir, f"--load_fast={str(fast).lower()}") as (address, process):
        base = f"{address}/data/plugin/gradwatch"
        begun = time.perf_counter()
        while [run["last"] for run in _get(f"{base}/runs")[0]["runs"]] != [steps - 1]:
            time.sleep(0.5)
        found = {"load_s": time.perf_counter() - begun}
        picture = f"{base}/overview?run=run&least=0&columns=1200&rows=700"
        before = _cpu(process)
        view, found["first_s"], first_size = _get(picture)
        found["first_cpu_s"] = _cpu(process) - before
        assert view["rows_read"] == steps, "TensorBoard has loaded a part only"
        found["again_s"] = statistics.median(_get(picture)[1] for _ in range(5))
        zooms = [_get(f"{picture}&lo={lo}&hi={lo + steps // 10}")[1:] for lo in range(0, steps, steps // 10)]
        layer = urllib.parse.quote(view["names"][layers // 2])
        answers = [
            _get(f"{base}/layer?run=run&layer={layer}"),
            _get(f"{base}/step?run=run&step={steps // 2}"),
            _get(f"{base}/report?run=run"),
        ]
        found["zoom_s"] = max(seconds for seconds, _ in zooms)
        found |= {name: answer[1] for name, answer in zip(("layer_s", "step_s", "verdict_s"), answers)}
        sizes = [first_size, *(size for _, size in zooms), *(answer[2] for answer in answers)]
        return {**found, "mb": max(sizes) / 1e6}


def _get(url: str) -> tuple[Any, float, int]:
    """The answer, seconds until it had come, and its size before it was compressed."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    begun = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as response:
        content = response.read()
    seconds = time.perf_counter() - begun
    text = gzip.decompress(content)
    return json.loads(text), seconds, len(text)


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and its children so far."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


@contextmanager
def _tensorboard(logdir: Path, *flags: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a TensorBoard of its own, and its process."""
    output = logdir.parent / "output.txt"
    with output.open("w") as file:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0", *flags]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        while "(Press CTRL+C to quit)" not in output.read_text():
            assert process.poll() is None, output.read_text()
            time.sleep(0.1)
        address = output.read_text().split(" at ")[-1].split(" (")[0].rstrip("/")
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def measure(layers: int, steps: int, directory: Path) -> dict[str, dict[str, float]]:
    """All figures of one log: what concerns the file, and each data server."""
    logdir = directory / "logs"
    found = {"file": {**write(logdir / "run", layers, steps), **without_server(logdir / "run")}}
    for name, fast in (("rust", True), ("python", False)):
        found[name] = with_server(logdir, layers, steps, fast)
    return found


def rows(found: dict[tuple[int, int], dict[str, dict[str, float]]]) -> list[list[str]]:
    """A row per figure, a column per log."""
    file = [
        ("written per step, kB, all that comes every 100 steps with it", "bytes", lambda v: f"{v / 1e3:.2f}"),
        ("CPU ms of a step", "write_ms", lambda v: f"{v:.2f}"),
        ("read without a server, s", "read_s", lambda v: f"{v:.1f}"),
        ("`gradwatch report`, s, the reading with it", "report_s", lambda v: f"{v:.1f}"),
    ]
    server = [
        ("TensorBoard loads the log, s", "load_s", lambda v: f"{v:.1f}"),
        (f"first picture after that, s (goal {FIRST:g})", "first_s", lambda v: _judged(v, FIRST)),
        ("CPU s of that, all processes", "first_cpu_s", lambda v: f"{v:.2f}"),
        ("the same again, s", "again_s", lambda v: f"{v:.2f}"),
        (f"the slowest of ten zooms, s (goal {ZOOM:g})", "zoom_s", lambda v: _judged(v, ZOOM)),
        ("a layer, s", "layer_s", lambda v: f"{v:.2f}"),
        ("a step, s", "step_s", lambda v: f"{v:.2f}"),
        (f"largest answer, MB (goal {MEGABYTES:g})", "mb", lambda v: _judged(v, MEGABYTES)),
    ]
    lines = [[title, *(form(one["file"][key]) for one in found.values())] for title, key, form in file]
    for name, words in (("rust", "fast loading"), ("python", "`--load_fast=false`")):
        lines += [
            [f"{words}: {title}", *(form(one[name][key]) for one in found.values())] for title, key, form in server
        ]
    return lines


def _judged(value: float, limit: float) -> str:
    return f"{value:.2f}" + (", missed" if value > limit else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, help="put the table between the marks of this file")
    parser.add_argument("--sizes", nargs="+", metavar="LAYERSxSTEPS", help="default: 300x100000 3000x5000")
    arguments = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes or ()] or SIZES
    found = {}
    for layers, steps in sizes:
        with tempfile.TemporaryDirectory() as directory:
            found[layers, steps] = measure(layers, steps, Path(directory))
    header = ["", *(f"{layers:,} layers x {steps:,} steps" for layers, steps in found)]
    lines = rows(found)
    table = Table(*header)
    for line in lines:
        table.add_row(*line)
    Console(width=160).print(table)
    if arguments.docs:
        text = "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---", *["---:"] * len(found)], *lines])
        before, rest = arguments.docs.read_text(encoding="utf-8").split(START)
        note = f"{machine()}. Made by `python -m benchmarks.tab --docs {arguments.docs}`."
        content = f"{before}{START}\n{text}\n\n{note}\n{END}{rest.split(END)[1]}"
        arguments.docs.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
