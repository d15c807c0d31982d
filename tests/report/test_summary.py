"""Numbers of a run against NumPy's own over the whole of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradwatch.records import Severity
from gradwatch.report.summary import SAMPLE, TREND, Change, compare, summarize
from gradwatch.tensorboard_plugin.tables import read
from tests.event_logs import VANISHING, layer_names, write

LAYERS = layer_names(3)


def norms(steps: int, seed: int = 0) -> np.ndarray:
    return (10.0 ** np.random.default_rng(seed).uniform(-5, 1, (steps, 3))).astype(np.float32)


def test_each_layer_in_numbers(tmp_path: Path) -> None:
    values = norms(64)
    rows = [[*map(float, row)] for row in values]
    rows[3] = [np.nan, np.inf, None]
    rows[4] = [0.0, None, None]
    write(tmp_path, LAYERS, rows)
    run = summarize("exp/1", read(tmp_path))
    assert (run.name, run.first, run.last, run.steps) == ("exp/1", 0, 63, 64)
    for i, layer in enumerate(run.layers):
        plain = np.delete(values[:, i], [3, 4]).astype(np.float64)
        assert layer.name == LAYERS[i]
        assert layer.median == pytest.approx(np.median(plain))
        assert (layer.least, layer.largest) == (plain.min(), plain.max())
        assert len(layer.trend) == TREND
        assert layer.trend[5] == values[20:24, i].max()
    assert [layer.states for layer in run.layers] == [
        {"nan": 1, "zero": 1},
        {"inf": 1, "no gradient": 1},
        {"no gradient": 2},
    ]


def test_a_layer_without_any_number_has_none(tmp_path: Path) -> None:
    write(tmp_path, ("a", "b"), [[None, 1.0]] * 3)
    layer = summarize("run", read(tmp_path)).layers[0]
    assert np.isnan([layer.median, layer.least, layer.largest]).all()
    assert layer.trend == (0.0, 0.0, 0.0)
    assert layer.states == {"no gradient": 3}


def test_a_long_run_has_the_median_of_evenly_spread_steps(tmp_path: Path) -> None:
    steps = 2 * SAMPLE + 100
    write(tmp_path, ("a",), np.arange(1.0, steps + 1)[:, None])
    assert summarize("run", read(tmp_path)).layers[0].median == pytest.approx(steps / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("severities", "verdict", "worst"),
    [
        ([], Severity.INFO, Severity.INFO),
        ([], Severity.WARNING, Severity.WARNING),
        ([Severity.ERROR, Severity.INFO], Severity.INFO, Severity.ERROR),
    ],
)
def test_the_worst_of_the_verdict_and_the_alerts(
    severities: list[Severity], verdict: Severity, worst: Severity, tmp_path: Path
) -> None:
    alerts = tuple(replace(VANISHING, step=i, severity=severity) for i, severity in enumerate(severities))
    write(tmp_path, LAYERS, norms(5), said={4: {"alerts": alerts, "severity": verdict}})
    assert summarize("run", read(tmp_path)).worst is worst


def test_a_warning_that_went_on_as_an_error_is_one(tmp_path: Path) -> None:
    severities = [Severity.WARNING, Severity.ERROR, Severity.INFO, Severity.ERROR]
    alerts = tuple(replace(VANISHING, layer=LAYERS[0], step=i, severity=one) for i, one in enumerate(severities))
    write(tmp_path, LAYERS, norms(5), said={4: {"alerts": alerts}})
    assert summarize("run", read(tmp_path)).layers[0].alerts == {"vanishing": 2}


def test_alerts_are_counted_for_every_layer_that_they_name(tmp_path: Path) -> None:
    alerts = (
        replace(VANISHING, layer=LAYERS[0]),
        replace(VANISHING, layer=LAYERS[0], rule="dead"),
        replace(VANISHING, layer=LAYERS[0], severity=Severity.INFO),
        replace(VANISHING, layer=None, layers=LAYERS[:2]),
        replace(VANISHING, layer=None),
        replace(VANISHING, layer="gone"),
    )
    write(tmp_path, LAYERS, norms(9), said={7: {"alerts": alerts}})
    found = [layer.alerts for layer in summarize("run", read(tmp_path)).layers]
    assert found == [{"vanishing": 2, "dead": 1}, {"vanishing": 1}, {}]


def test_two_runs_layer_by_layer(tmp_path: Path) -> None:
    write(tmp_path / "a", ("x", "y", "old"), [[1.0, 2.0, 3.0]])
    write(tmp_path / "b", ("new", "y", "x"), [[1.0, 6.0, None]])
    found = compare(summarize("a", read(tmp_path / "a")), summarize("b", read(tmp_path / "b")))
    assert [change.layer for change in found.changes] == ["x", "y"]
    assert np.isnan(found.changes[0].factor)
    assert found.changes[1].factor == 3.0
    assert (found.only_before, found.only_after) == (("old",), ("new",))


def test_there_is_no_factor_of_nothing() -> None:
    assert np.isnan(Change("a", 0.0, 1.0).factor)
    assert np.isnan(Change("a", np.nan, 1.0).factor)
