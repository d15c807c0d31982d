from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from gradwatch.records import Report, Severity
from gradwatch.report.summary import LayerSummary, RunSummary, compare
from gradwatch.report.text import ALERTS, CHANGES, LAYERS, chosen, comparison, summary, trend
from tests.event_logs import DEEP, VANISHING


def layer(name: str, median: float = 1.0, alerts: Mapping[str, int] | None = None, **states: int) -> LayerSummary:
    return LayerSummary(name, median, median / 2, median * 2, (median,), states, alerts or {})


def run(*layers: LayerSummary, name: str = "run", notes: tuple[str, ...] = (), **report: object) -> RunSummary:
    said = {"verdict": "healthy: 10 steps", "severity": Severity.INFO, **report}
    return RunSummary(name, Report(**said), 0, 1234, 1235, said["severity"], layers, notes)  # type: ignore[arg-type]


def text(found: RunSummary) -> list[str]:
    return [line.text for line in summary(found)]


def test_a_run_in_words() -> None:
    sick = layer("fc1", 3e-9, {"vanishing": 1, "dead": 2}, nan=1, zero=1500)
    found = run(
        sick,
        layer("fc2"),
        verdict="vanishing: fc1",
        severity=Severity.ERROR,
        alerts=(VANISHING,),
        diagnoses=(DEEP,),
        notes=("x: cut off", "y: too"),
    )
    assert text(found) == [
        "Run       run",
        "Verdict   vanishing: fc1",
        "Why       saturation (confidence 90%)",
        "Evidence  sigmoid passes 0.05 per layer",
        "Next      use ReLU",
        "Recorded  1,235 steps (0 to 1,234), 2 layers",
        "Note      x: cut off",
        "          y: too",
        "Alerts    step 7  ERROR vanishing  a: gradient norm 1e-09 stayed below 1e-07",
        "",
        "layer    median     least   largest  over time",
        "fc1    3.00e-09  1.50e-09  6.00e-09  ▁          vanishing; 2 x dead; nan at 1 step; zero at 1,500 steps",
        "fc2    1.00e+00  5.00e-01  2.00e+00  ▁",
    ]
    assert [line.severity for line in summary(found) if line.severity > Severity.INFO] == [Severity.ERROR] * 2


def test_of_many_alerts_the_first_are_listed() -> None:
    alerts = tuple(VANISHING.__class__(i, "dead", "a", Severity.WARNING, 0.0, 0.0, "a: zero") for i in range(30))
    shown = [line for line in text(run(layer("a"), alerts=alerts)) if "dead" in line or "more" in line]
    assert len(shown) == ALERTS + 1
    assert shown[-1] == "          ... and 20 more"


def test_of_many_layers_those_that_matter_and_evenly_spread_others_are_listed() -> None:
    layers = [
        layer(str(i), alerts={"dead": 1} if i == 77 else None, **({"nan": 1} if i == 55 else {})) for i in range(301)
    ]
    names = [int(found.name) for found in chosen(layers)]
    assert len(names) == LAYERS
    assert names == sorted(names)
    assert {0, 55, 77, 300} <= set(names)
    assert text(run(*layers))[-1] == f"... and {301 - LAYERS} more layers"
    assert [found.name for found in chosen(layers[:3])] == ["0", "1", "2"]
    assert chosen([]) == []


def test_of_many_layers_with_alerts_the_first_and_the_last_are_listed() -> None:
    names = [int(found.name) for found in chosen([layer(str(i), alerts={"dead": 1}) for i in range(100)])]
    assert (len(names), names[0], names[-1]) == (LAYERS, 0, 99)


def test_long_and_hostile_names_cannot_break_a_line() -> None:
    name = "x" * 300 + "\x1b[31m\n<b>.last"
    lines = text(run(layer(name), name="run\n\x1b[2J", notes=("note\r",)))
    assert all(line.isprintable() for line in lines)
    assert all(len(line) < 120 for line in lines)
    assert any(line.startswith("...") and "<b>.last" in line for line in lines)


def test_two_runs_side_by_side() -> None:
    before = run(layer("a"), layer("b"), layer("old"), name="x/run")
    after = run(layer("a", 100.0), layer("b", np.nan), name="y/run", verdict="exploding: a", severity=Severity.ERROR)
    lines = comparison(compare(before, after))
    assert [line.text for line in lines] == [
        "Compared  x/run -> y/run",
        "Before    healthy: 10 steps",
        "After     exploding: a",
        "",
        "layer  median before     after  factor",
        "a           1.00e+00  1.00e+02    100x",
        "1 more layer in both: the norms differ less or are not known",
        "1 layer only in x/run",
    ]
    assert lines[2].severity is Severity.ERROR


def test_the_largest_changes_are_shown_in_the_order_of_depth() -> None:
    factors = [1.0, 1e-3, 2.0, *[1.1] * 20, 1e3]
    before = run(*(layer(str(i)) for i in range(len(factors))))
    after = run(*(layer(str(i), factor) for i, factor in enumerate(factors)))
    rows = [line.text.split()[0] for line in comparison(compare(before, after))[5:]][:CHANGES]
    assert [name for name in rows if name in ("1", "2", str(len(factors) - 1))] == ["1", "2", str(len(factors) - 1)]
    assert rows == sorted(rows, key=int)


@pytest.mark.parametrize(
    ("values", "shown"),
    [((), ""), ((0.0, 0.0), "  "), ((5.0, 5.0), "▁▁"), ((1.0, 1.1), "▁▁"), ((1e-9, 1.0), "▁█"), ((1.0, 10.0), "▁█")],
)
def test_a_trend_is_no_steeper_than_a_decade_in_full(values: tuple[float, ...], shown: str) -> None:
    assert trend(values) == shown
