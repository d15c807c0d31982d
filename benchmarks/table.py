"""The figures of one run as tables: for the terminal with rich, and in markdown for the README."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.cost import STEP
from benchmarks.goals import goals
from benchmarks.workloads import ALL as WORKLOADS

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- cost -->", "<!-- /cost -->"

HEAD = "CPU ms per step (share of a training step)"
GOALS = ("figure", "goal", "measured", "")


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """All that was measured, for the terminal."""
    if costs := results["workloads"]:
        yield _rich(results["machine"], [HEAD, *_heads(costs)], cost_rows(costs))
    if rows := other_rows(results):
        yield _rich("of each workload", ["", *WORKLOADS], rows)
    for key, unit in (("tensors", "number of tiny tensors"), ("megabytes", "MB in 100 tensors")):
        if growth := results.get(f"growth_by_{key}"):
            rows = [[kind, *(f"{row[f'{kind}_ms']:.3f}" for row in growth)] for kind in ("read", "norms", "gradwatch")]
            yield _rich(f"CPU ms per step by {unit}", ["", *(f"{row[key]:g}" for row in growth)], rows)
    if memory := results.get("memory_over_steps"):
        for name, found in memory.items():
            kinds = [kind for kind in found[0] if kind != "steps"]
            rows = [[kind, *(_number(row[kind]) for row in found)] for kind in kinds]
            yield _rich(f"memory, {name}".replace("_", " "), ["steps", *(f"{row['steps']:,}" for row in found)], rows)
    if found := goals(results):
        yield _rich("goals", GOALS, [goal.cells for goal in found])


def markdown(results: Mapping[str, Any]) -> str:
    """What the README shows."""
    costs = results["workloads"]
    places = "; ".join(f"{w}: {result['title']}" for w, result in costs.items())
    how = f"python -m benchmarks --rounds {results['rounds']}" if results.get("rounds") else "make bench"
    note = f"{places}. {results['machine']}. Made by `{how}`, see [docs/benchmarks.md](docs/benchmarks.md)."
    parts = [
        _markdown([HEAD, *_heads(costs)], cost_rows(costs), "---:"),
        _markdown(GOALS, [goal.cells for goal in goals(results)], "---"),
    ]
    return "\n\n".join([*parts, note])


def write_readme(text: str, readme: Path = README) -> None:
    """Put ``text`` between the marks."""
    before, rest = readme.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    readme.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def cost_rows(costs: Mapping[str, Any]) -> list[list[str]]:
    """A row per method: ms per step, and the share of a training step."""
    rows = []
    for title in next(iter(costs.values()))["ms"]:
        cells = []
        for result in costs.values():
            ms, step = result["ms"][title], result["ms"][STEP]
            cells.append(f"{ms:.1f}" if title == STEP else f"{ms:.2f} ({ms / step:.1%})")
        rows.append([title, *cells])
    return rows


def other_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """What was measured of each workload besides its costs."""
    costs, slowdown = results["workloads"], results.get("slowdown", {})
    figures = {
        "event bytes per step": {w: result["event_bytes_per_step"] for w, result in costs.items()},
        "training step with gradwatch against one without": {w: found["together"] for w, found in slowdown.items()},
        "the same, each step taken in by itself": {w: found["one by one"] for w, found in slowdown.items()},
        "peak extra memory of gradwatch, MB": results.get("peak_mb", {}),
        "the same with histograms, MB": results.get("peak_mb_histograms", {}),
        "peak extra memory of a probed step, MB": results.get("probed_peak_mb", {}),
    }
    return [[title, *(_number(found.get(w)) for w in WORKLOADS)] for title, found in figures.items() if found]


def _heads(costs: Mapping[str, Any]) -> list[str]:
    return [f"{w}: {result['tensors']} tensors, {result['megabytes']:.0f} MB" for w, result in costs.items()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _rich(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title)
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i and heads is not GOALS else "left")
    for row in rows:
        table.add_row(*row, style="red" if row[-1].startswith("missed") else None)
    return table


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    lines = [heads, ["---", *[align] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
