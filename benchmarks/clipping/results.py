"""All runs, and the table of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.clipping.methods import METHODS
from benchmarks.clipping.runs import calibrate, steps_lost, train
from benchmarks.clipping.tasks import TASKS
from benchmarks.clipping.troubles import TROUBLES

PAGE = Path(__file__).parents[2] / "docs" / "clipping.md"
START, END = "<!-- clipping -->", "<!-- /clipping -->"


def measure(steps: int, seeds: int) -> dict[str, Any]:
    """For each task, trouble and method: final losses, steps lost and rates, one entry per seed."""
    results: dict[str, Any] = {"steps": steps, "seeds": seeds, "limits": {}, "healthy": {}, "runs": {}}
    for name, task in TASKS.items():
        limits = calibrate(task, seed=1000, steps=steps)
        results["limits"][name] = limits._asdict()
        healthy = [train(task, "nothing", "no clipping", limits, seed, steps) for seed in range(seeds)]
        results["healthy"][name] = [run.curve for run in healthy]
        cells = [(trouble, method) for trouble in TROUBLES for method in METHODS]
        for trouble, method in track(cells, description=task.title.ljust(34)):
            runs = [train(task, trouble, method, limits, seed, steps) for seed in range(seeds)]
            results["runs"].setdefault(name, {}).setdefault(trouble, {})[method] = {
                "loss": [run.loss if math.isfinite(run.loss) else "inf" for run in runs],
                "lost": [steps_lost(run, of_seed, steps) for run, of_seed in zip(runs, healthy)],
                "rate": [run.rate for run in runs],
            }
    return results


def rows(runs: dict[str, Any]) -> Iterator[list[str]]:
    """Of one task a row per method; of each trouble the final loss, the steps lost, and the share clipped."""
    for method in METHODS:
        yield [method, *(_cell(runs[trouble][method]) for trouble in TROUBLES)]


def markdown(results: dict[str, Any], machine: str) -> str:
    """The tables, and how they were made."""
    parts = []
    for name, task in TASKS.items():
        limits = results["limits"][name]
        lines: list[Sequence[str]] = [["", *TROUBLES], ["---", *["---:"] * len(TROUBLES)]]
        lines += rows(results["runs"][name])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(
            f"**{task.title}**; limits: GlobalNorm {limits['total']:.3g}, PerLayer {limits['layer']:.3g}, Value "
            f"{limits['element']:.3g}\n\n{table}"
        )
    parts.append(
        f"Final loss: median (least to largest) over {results['seeds']} seeds; steps lost of {results['steps']}; share "
        f"of steps clipped. {machine}. Made by `make bench-clipping`."
    )
    return "\n\n".join(parts)


def write_page(text: str, page: Path = PAGE) -> None:
    """Put ``text`` between the marks."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    page.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def _cell(found: dict[str, list[Any]]) -> str:
    losses = [float(loss) for loss in found["loss"]]
    died = sum(map(math.isinf, losses))
    if died > len(losses) / 2:
        return f"**lost** in {died} of {len(losses)}"
    low, middle, high = (_loss(loss) for loss in (min(losses), statistics.median(losses), max(losses)))
    return f"{middle} ({low} to {high}), {statistics.median(found['lost']):.0f}, {statistics.median(found['rate']):.0%}"


def _loss(loss: float) -> str:
    return "inf" if math.isinf(loss) else f"{loss:.2f}" if loss < 100 else f"{loss:.0e}"
