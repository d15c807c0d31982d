"""What is shown equals what was written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch import tags
from gradwatch.profile import BackwardProfile, Segment
from gradwatch.records import ClipRecord, Severity
from gradwatch.tensorboard_plugin import views
from gradwatch.tensorboard_plugin.pooling import INF, NAN, NO_GRADIENT, ZERO
from gradwatch.tensorboard_plugin.tables import Tables, read
from tests.event_logs import DEEP, PROFILE, VANISHING, layer_names, sampled, write
from tests.tensorboard_plugin.reading import decoded

STEPS = 200
LAYERS = layer_names(5)
HOSTILE = ("</script><script>alert(1)</script>", "x" * 300, "nan", "a/b|c%d", "‮rtl\n\x00\ud800")


def norms() -> np.ndarray:
    found = (10.0 ** np.random.default_rng(0).uniform(-6, 3, (STEPS, len(LAYERS)))).astype(np.float32)
    found[50, 0], found[60, 1], found[70, 2], found[77, 4] = np.nan, np.inf, 0.0, 1e6
    return found


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    rows = [[*map(float, row)] for row in norms()]
    rows = [[*row[:3], None if 80 <= step < 90 else row[3], row[4]] for step, row in enumerate(rows)]
    said: dict[int, Any] = {
        7: {"alerts": (replace(VANISHING, layer=LAYERS[0]),), "diagnoses": (DEEP,), "severity": Severity.ERROR},
        9: {"alerts": (replace(VANISHING, step=9, layer=None, layers=LAYERS[1:3], value=np.nan),)},
        40: {"profile": PROFILE},
    }
    clip = {
        s: ClipRecord("global_norm", 2.0 + s, 1.0, 1 / (2 + s), 1.0, clipped=float(s % 4 == 0)) for s in range(STEPS)
    }
    directory = tmp_path_factory.mktemp("run")
    write(directory, LAYERS, rows, said=said, sample_every=20, clip=clip)
    return read(directory)


def log10(values: np.ndarray) -> np.ndarray:
    plain = (values > 0) & np.isfinite(values)
    return np.where(plain, np.log10(np.where(plain, values, 1.0).astype(np.float64)), np.nan).astype(np.float32)


def plain(view: views.View) -> Any:
    """Through JSON and back, as it goes to the browser."""
    return json.loads(json.dumps(view, allow_nan=False))


def test_at_full_resolution_every_norm_is_in_a_cell_of_its_own(tables: Tables) -> None:
    view = plain(views.overview(tables))
    assert view["layers"] == view["names"] == [*LAYERS]
    assert view["steps"] == view["ends"] == [*range(STEPS)]
    wanted = log10(norms()).T
    wanted[3, 80:90] = np.nan
    np.testing.assert_array_equal(decoded(view["norm"]), wanted)
    np.testing.assert_array_equal(decoded(view["least"]), wanted)
    marks = np.zeros((5, STEPS), np.uint8)
    marks[0, 50], marks[1, 60], marks[2, 70], marks[3, 80:90] = NAN, INF, ZERO, NO_GRADIENT
    np.testing.assert_array_equal(decoded(view["marks"]), marks)
    assert (view["lo"], view["hi"], view["rows_read"], view["all_layers"]) == (0, STEPS - 1, STEPS, 5)
    assert view["probes"] == [40]


def test_in_few_columns_the_largest_and_the_least_of_each_are_shown(tables: Tables) -> None:
    view = plain(views.overview(tables, columns=10))
    assert view["steps"] == [*range(0, STEPS, 20)]
    assert view["ends"] == [*range(19, STEPS, 20)]
    cells = log10(norms()).reshape(10, 20, 5)
    cells[4, 0:10, 3] = np.nan
    np.testing.assert_array_equal(decoded(view["norm"]), np.nanmax(cells, axis=1).T)
    np.testing.assert_array_equal(decoded(view["least"]), np.nanmin(cells, axis=1).T)
    assert decoded(view["norm"])[4, 3] == 6  # the spike of one step


def test_a_window_is_read_at_its_own_resolution(tables: Tables) -> None:
    view = plain(views.overview(tables, lo=45, hi=54, least=False))
    assert view["steps"] == [*range(45, 55)]
    assert "least" not in view
    np.testing.assert_array_equal(decoded(view["norm"]), log10(norms()[45:55]).T)
    assert len(view["alerts"]) == 2  # those of the whole run


@pytest.mark.parametrize(("lo", "hi"), [(STEPS, None), (None, -1), (90, 80), (-5, -1)])
def test_a_window_without_steps_is_told(lo: int | None, hi: int | None, tables: Tables) -> None:
    with pytest.raises(views.NotRecordedError, match="no step was recorded from"):
        views.overview(tables, lo, hi)


def test_the_total_is_shown_beside(tables: Tables) -> None:
    view = plain(views.overview(tables, lo=0, hi=39, columns=20))
    total = np.log10(np.linalg.norm(norms()[:40].astype(np.float64), axis=1)).reshape(20, 2)
    np.testing.assert_allclose(decoded(view["total"]["largest"]), total.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(decoded(view["total"]["least"]), total.min(axis=1), rtol=1e-6)


def test_layers_are_merged_into_rows(tables: Tables) -> None:
    view = plain(views.overview(tables, rows=2))
    assert view["layers"] == [f"{LAYERS[0]} ... {LAYERS[1]} (2)", f"{LAYERS[2]} ... {LAYERS[4]} (3)"]
    assert view["counts"] == [2, 3]
    assert view["names"] == [*LAYERS]
    wanted = log10(norms())[:40]
    np.testing.assert_array_equal(decoded(view["norm"])[0, :40], wanted[:, :2].max(axis=1))


@pytest.mark.parametrize(("match", "names"), [("BLOCKS.1", [LAYERS[1]]), ("", [*LAYERS]), ("nowhere", [])])
def test_layers_are_chosen_by_a_part_of_their_name(match: str, names: list[str], tables: Tables) -> None:
    view = plain(views.overview(tables, match=match))
    assert view["names"] == view["layers"] == names
    assert view["counts"] == [1] * len(names)
    assert view["all_layers"] == 5
    assert decoded(view["norm"]).shape == (len(names), STEPS)


def test_what_was_clipped_is_shown_in_the_same_columns(tables: Tables) -> None:
    clip = plain(views.overview(tables, columns=100))["clip"]
    assert (clip["policy"], clip["rate"]) == ("global_norm", 0.25)
    np.testing.assert_allclose(decoded(clip["coefficient"]), 1 / (2 + np.arange(1, STEPS, 2)), rtol=1e-6)
    np.testing.assert_array_equal(decoded(clip["threshold"]), np.zeros(100))
    np.testing.assert_array_equal(decoded(clip["clipped"]), np.tile([0.5, 0.0], 50))


def test_columns_in_which_nothing_was_clipped_for_lack_of_a_record(tmp_path: Path) -> None:
    record = ClipRecord("value", 2.0, 1.0, math.nan, math.inf)
    write(tmp_path, ("a",), [[1.0]] * 9, clip={4: record, 5: replace(record, coefficient=0.5)})
    clip = plain(views.overview(read(tmp_path), columns=3))["clip"]
    assert clip["rate"] == 0.5
    np.testing.assert_array_equal(decoded(clip["coefficient"]), np.array([np.nan, 0.5, np.nan], np.float32))
    np.testing.assert_array_equal(decoded(clip["threshold"]), [np.nan] * 3)
    np.testing.assert_array_equal(decoded(clip["clipped"]), [np.nan, 0.5, np.nan])


def test_alerts_have_their_numbers_and_all_their_layers(tables: Tables) -> None:
    first, second = plain(views.overview(tables))["alerts"]
    assert (first["layer"], first["severity"], first["value"]) == (LAYERS[0], "error", 1e-9)
    assert (second["layer"], second["layers"], second["value"]) == (None, [*LAYERS[1:3]], None)


def test_of_too_many_alerts_the_worst_and_the_first_are_shown(tmp_path: Path) -> None:
    severities = [Severity.ERROR if step % 10 == 0 else Severity.WARNING for step in range(120)]
    words = "w" * 5000
    said = {
        step: {"alerts": (replace(VANISHING, step=step, severity=severity, message=words),)}
        for step, severity in enumerate(severities)
    }
    write(tmp_path, ("a",), [[1.0]] * 120, said=said)
    view = plain(views.overview(read(tmp_path)))
    steps = [alert["step"] for alert in view["alerts"]]
    assert steps == sorted(steps)
    assert set(range(0, 120, 10)) < set(steps) < set(range(90)) | set(range(0, 120, 10))
    assert len(json.dumps(view["alerts"])) <= views.MAX_ALERT_BYTES


@pytest.mark.parametrize(("layers", "name", "least"), [(300, "l", True), (300, "x" * 300, False), (3000, "l", True)])
def test_an_answer_is_at_most_two_megabytes(layers: int, name: str, least: bool, tmp_path: Path) -> None:
    write(tmp_path, [f"{name}{i}" for i in range(layers)], np.ones((900, layers)))
    view = views.overview(read(tmp_path), columns=4096, rows=4096, least=least)
    size = len(json.dumps(view, separators=(",", ":")))
    assert 0.5 * views.MAX_BYTES < size <= views.MAX_BYTES


def test_a_step_is_shown_as_it_was_measured(tables: Tables) -> None:
    view = plain(views.step(tables, 81))
    assert (view["step"], view["sampled_step"], view["layers"]) == (81, 80, [*LAYERS])
    wanted = log10(norms()[81]).tolist()
    assert view["norm"][:3] == pytest.approx(wanted[:3], rel=1e-6)
    assert view["norm"][3] is None
    assert view["state"] == ["ok", "ok", "ok", "none", "ok"]
    row = norms()[81].astype(np.float64)
    assert view["total"] == pytest.approx(np.linalg.norm(row[[0, 1, 2, 4]]))
    for name in ("max_abs", "zero_fraction", "nonfinite", "param_norm", "update_ratio"):
        np.testing.assert_allclose(view[name], sampled(5, 80)[name], rtol=1e-6)
    assert view["clip"]["norm_before"] == 83.0
    assert [plain(views.step(tables, step))["state"][i] for i, step in enumerate((50, 60, 70))] == [
        "nan",
        "inf",
        "zero",
    ]
    assert plain(views.step(tables, 50))["total"] is None


@pytest.mark.parametrize(("asked", "found"), [(-(10**18), 0), (0, 0), (81, 81), (10**18, STEPS - 1)])
def test_the_nearest_step_is_shown(asked: int, found: int, tables: Tables) -> None:
    assert views.step(tables, asked)["step"] == found


@pytest.mark.parametrize(("asked", "found"), [(0, 10), (14, 10), (15, 10), (16, 20), (99, 20)])
def test_between_two_steps_the_nearer_is_shown(asked: int, found: int, tmp_path: Path) -> None:
    write(tmp_path, ("a",), [[1.0], [2.0]], steps=[10, 20])
    view = plain(views.step(read(tmp_path), asked))
    assert view["step"] == found
    assert (view["sampled_step"], view["max_abs"], view["update_ratio"], view["clip"]) == (None, None, None, None)


def test_alerts_of_a_step(tables: Tables) -> None:
    assert [alert["rule"] for alert in views.step(tables, 7)["alerts"]] == ["vanishing"]
    assert views.step(tables, 8)["alerts"] == []


def test_a_layer_over_time(tables: Tables) -> None:
    view = plain(views.layer(tables, LAYERS[0], columns=20))
    column = norms()[:, 0].reshape(20, 10)
    for name, of in (("largest", np.nanmax), ("least", np.nanmin), ("median", np.nanmedian)):
        np.testing.assert_allclose(decoded(view[name]), np.log10(of(column, axis=1)), rtol=1e-5, atol=1e-6)
    assert decoded(view["marks"]).tolist() == [NAN if c == 5 else 0 for c in range(20)]
    assert view["band"] == {"low": pytest.approx(-7.0), "high": None}
    assert [alert["step"] for alert in view["alerts"]] == [7]
    assert view["update_ratio"]["steps"] == [*range(0, STEPS, 20)]
    np.testing.assert_allclose(
        view["update_ratio"]["values"], [sampled(5, s)["update_ratio"][0] for s in range(0, STEPS, 20)], rtol=1e-6
    )


def test_the_histograms_of_a_layer_are_those_that_were_counted(tables: Tables) -> None:
    found = plain(views.layer(tables, LAYERS[2], lo=20, hi=100))["histogram"]
    assert found["steps"] == [20, 40, 60, 80, 100]
    edges = tags.HISTOGRAM_EDGES.tolist()
    begin = edges.index(found["edges"][0])
    assert found["edges"] == edges[begin : begin + len(found["edges"])]
    counts = decoded(found["counts"])
    assert counts.shape == (5, len(found["edges"]) - 1)
    for row, step in zip(counts, found["steps"]):
        np.testing.assert_array_equal(row, sampled(5, step)["histogram"][2][begin : begin + len(row)])


def test_an_alert_of_many_layers_is_one_of_each(tables: Tables) -> None:
    assert [alert["step"] for alert in views.layer(tables, LAYERS[1])["alerts"]] == [9]
    assert views.layer(tables, LAYERS[4])["alerts"] == []


def test_a_layer_that_was_never_sampled_has_nothing_of_it(tmp_path: Path) -> None:
    write(tmp_path, ("a",), [[None], [0.0]])
    view = plain(views.layer(read(tmp_path), "a"))
    assert (view["histogram"], view["update_ratio"]) == (None, None)
    assert np.isnan(decoded(view["median"])).all()
    assert decoded(view["marks"]).tolist() == [NO_GRADIENT, ZERO]


def test_an_unknown_layer_is_told(tables: Tables) -> None:
    with pytest.raises(views.NotRecordedError, match="there is no layer 'nowhere' in this run"):
        views.layer(tables, "nowhere")


def test_the_report_in_words_and_numbers(tables: Tables) -> None:
    view = plain(views.report(tables))
    assert view["verdict"] == "healthy: 200 steps"
    assert view["sections"][1] == ["Why", ["saturation (confidence 90%)"]]
    assert dict(view["sections"])["Next"] == ["use ReLU"]
    assert (view["first"], view["last"], view["steps"], view["layers"]) == (0, STEPS - 1, STEPS, 5)
    assert view["notes"] == []


@pytest.mark.parametrize("asked", [40, 41, 10**6, 0])
def test_the_profile_of_a_backward_pass(asked: int, tables: Tables) -> None:
    view = plain(views.profile(tables, asked))
    assert view["step"] == 40
    assert [segment["log_gain"] for segment in view["segments"]] == pytest.approx([math.log(0.05), math.log(2.0)])
    assert view["by_kind"] == {"activation": pytest.approx(math.log(0.05)), "weight": pytest.approx(math.log(2.0))}
    assert (view["depth"], view["gain_per_layer"]) == (1, pytest.approx(0.1))
    assert view["log_gain"] == pytest.approx(PROFILE.log_gain)
    assert view["segments"][0]["skip"] is None  # NaN in the record


def test_a_profile_in_which_nothing_passes(tmp_path: Path) -> None:
    dead = BackwardProfile(
        (Segment("nan", "activation", "Relu", 0.0, 1.0), Segment("inf", "weight", "Mm", math.nan, 0.0))
    )
    write(tmp_path, ("a",), [[1.0]], said={0: {"profile": dead}})
    view = plain(views.profile(read(tmp_path), 0))
    assert [segment["layer"] for segment in view["segments"]] == ["nan", "inf"]
    assert [segment["log_gain"] for segment in view["segments"]] == [None, None]
    assert view["by_kind"] == {"activation": None, "weight": None}


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"segments": [3]}', b'{"segments": [{"gain": "x", "kind": 1}]}'])
def test_a_profile_that_is_none_is_told(text: bytes, tables: Tables) -> None:
    with pytest.raises(views.NotRecordedError, match="the profile of step 40 cannot be read"):
        views.profile(replace(tables, profiles=((40, text),)), 0)


def test_no_profile_is_told(tables: Tables) -> None:
    with pytest.raises(views.NotRecordedError, match="no backward pass of this run was probed"):
        views.profile(replace(tables, profiles=()), 0)


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    alerts = tuple(replace(VANISHING, step=0, layer=name, layers=HOSTILE) for name in HOSTILE)
    write(tmp_path, HOSTILE, np.arange(1.0, 11.0).reshape(2, 5), said={0: {"alerts": alerts}}, sample_every=1)
    found = read(tmp_path)
    view = plain(views.overview(found))
    assert view["layers"] == [*HOSTILE]
    assert [alert["layer"] for alert in view["alerts"]] == [*HOSTILE]
    assert all(alert["layers"] == [*HOSTILE] for alert in view["alerts"])
    for i, name in enumerate(HOSTILE):
        layer = plain(views.layer(found, name))
        np.testing.assert_allclose(decoded(layer["largest"]), np.log10([i + 1, i + 6]), rtol=1e-6, atol=1e-7)
        assert layer["histogram"]["steps"] == [0, 1]
