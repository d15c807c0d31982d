"""The routes, asked through TensorBoard's own application, on both of its data servers."""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch import tags
from gradwatch.records import ClipRecord, Severity
from gradwatch.tensorboard_plugin import assets, views
from gradwatch.tensorboard_plugin.loader import SAMPLES, Loader
from gradwatch.tensorboard_plugin.tables import read
from tests.event_logs import DEEP, PROFILE, VANISHING, event_files, layer_names, write
from tests.tensorboard_plugin.reading import decoded
from tests.tensorboard_plugin.servers import SERVERS, App, Server, until
from tests.tensorboard_plugin.test_events import GOOD, tensor_event

LAYERS = layer_names(4)
STEPS = tags.CHUNK_STEPS + 200
SPIKE, NAN = 1234, 4100
RUNS = ["exp1/bs32", "exp1/bs64", "plain"]


def norms() -> np.ndarray:
    found = (10.0 ** np.random.default_rng(1).uniform(-5, 1, (STEPS, len(LAYERS)))).astype(np.float32)
    found[SPIKE, 1], found[NAN, 2] = 1e7, np.nan
    return found


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logdir = tmp_path_factory.mktemp("logs")
    said: dict[int, Any] = {
        7: {"alerts": (replace(VANISHING, layer=LAYERS[0]),), "diagnoses": (DEEP,)},
        50: {"profile": PROFILE},
        STEPS - 1: {"verdict": "vanishing: a", "severity": Severity.ERROR},
    }
    clip = {step: ClipRecord("global_norm", 2.0, 1.0, 0.5, 1.0, clipped=1.0) for step in range(0, STEPS, 2)}
    write(logdir / "exp1" / "bs64", LAYERS, norms(), said=said, sample_every=100, clip=clip)
    write(logdir / "exp1" / "bs32", LAYERS[:2], np.ones((3, 2)))
    write(logdir / "plain", ("a",), [[1.0]])
    (logdir / "broken").mkdir()
    (logdir / "broken" / "events.out.tfevents.1").write_text("no record at all")
    (logdir / "secret.txt").write_text("secret")
    return logdir


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest, logdir: Path) -> Iterator[Server]:
    with SERVERS[request.param](logdir) as server:
        yield server


@pytest.fixture(scope="module")
def app(server: Server) -> App:
    app = App(server.provider)
    until(server, lambda: [run["last"] for run in app.answer("runs")["runs"]] == [2, STEPS - 1, 0])
    return app


def test_the_runs_are_listed_with_what_was_said_last(app: App) -> None:
    answer = app.answer("runs")
    assert answer["plotly"] is True
    assert [run["name"] for run in answer["runs"]] == RUNS
    run = answer["runs"][1]
    assert run == {
        "name": "exp1/bs64",
        "first": 0,
        "last": STEPS - 1,
        "layers": 4,
        "severity": "error",
        "verdict": "vanishing: a",
    }


@pytest.mark.parametrize(
    ("route", "view", "parameters"),
    [
        ("overview", views.overview, {"least": 0}),
        ("overview", views.overview, {"columns": 50, "rows": 3, "lo": 100, "hi": 4200, "match": "1.F"}),
        ("step", views.step, {"step": NAN}),
        ("step", views.step, {"step": -5}),
        ("layer", views.layer, {"layer": LAYERS[1], "columns": 30}),
        ("layer", views.layer, {"layer": LAYERS[3], "lo": 300, "hi": 500}),
        ("report", views.report, {}),
        ("profile", views.profile, {"step": 99}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_answer_is_what_the_event_files_hold(
    route: str, view: Any, parameters: dict[str, Any], app: App, logdir: Path
) -> None:
    wanted = json.loads(json.dumps(view(read(logdir / "exp1" / "bs64"), **parameters)))
    found = app.answer(route, run="exp1/bs64", **parameters)
    assert found.pop("run") == "exp1/bs64"
    assert found == wanted


def test_every_step_is_there_also_where_only_one_differs(app: App) -> None:
    for columns in (10, 1000):
        view = app.answer("overview", run="exp1/bs64", columns=columns)
        assert view["rows_read"] == STEPS
        assert decoded(view["norm"])[1].max() == 7
        assert (decoded(view["marks"])[2] == 1).sum() == 1


NUMBER = "must be a whole number from"


@pytest.mark.parametrize(
    ("route", "parameters", "code", "words"),
    [
        ("overview", {}, 400, "run must be given"),
        ("overview", {"run": "nowhere"}, 404, "there is no run 'nowhere' with gradients"),
        ("overview", {"run": "broken"}, 404, "there is no run 'broken' with gradients"),
        ("overview", {"run": "../../etc"}, 404, "there is no run '../../etc'"),
        ("overview", {"run": "r" * 5000}, 404, "there is no run 'rrr"),
        ("overview", {"run": "plain", "lo": "x"}, 400, f"lo {NUMBER} "),
        ("overview", {"run": "plain", "hi": "1e3"}, 400, f"hi {NUMBER} "),
        ("overview", {"run": "plain", "lo": "9" * 30}, 400, f"lo {NUMBER} "),
        ("overview", {"run": "plain", "lo": " 1"}, 400, f"lo {NUMBER} "),
        ("overview", {"run": "plain", "lo": "\u0661"}, 400, f"lo {NUMBER} "),
        ("overview", {"run": "plain", "lo": "1"}, 404, "no step was recorded from 1 to the last"),
        ("overview", {"run": "plain", "columns": "0"}, 400, f"columns {NUMBER} 1 to 4096, got '0'"),
        ("overview", {"run": "plain", "columns": "4097"}, 400, f"columns {NUMBER} 1 to 4096, got '4097'"),
        ("overview", {"run": "plain", "rows": "-1"}, 400, f"rows {NUMBER} 1 to 4096"),
        ("overview", {"run": "plain", "least": "2"}, 400, f"least {NUMBER} 0 to 1"),
        ("step", {"run": "plain"}, 400, f"step {NUMBER} "),
        ("step", {"run": "plain", "step": "NaN"}, 400, f"step {NUMBER} "),
        ("layer", {"run": "plain"}, 400, "layer must be given"),
        ("layer", {"run": "plain", "layer": "<b>\n"}, 404, "there is no layer '<b>\\n' in this run"),
        ("profile", {"run": "plain"}, 400, f"step {NUMBER} "),
        ("profile", {"run": "plain", "step": "1"}, 404, "no backward pass of this run was probed"),
        ("report", {"run": ""}, 404, "there is no run '' with gradients"),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_told(
    route: str, parameters: dict[str, str], code: int, words: str, app: App
) -> None:
    answer = app.answer(route, code, **parameters)
    assert list(answer) == ["error"]
    assert words in answer["error"]
    assert len(answer["error"]) < 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(method: str, app: App) -> None:
    response = app.get("runs", method=method)
    assert response.status_code == 405
    assert json.loads(response.get_data())["error"] == f"only GET is answered, got {method}"


@pytest.mark.parametrize(
    "path",
    ["../../secret.txt", "%2e%2e/%2e%2e/secret.txt", "static/index.js", "plugin.py", "index.js/..", "", "/etc/passwd"],
)
def test_only_the_routes_are_served(path: str, app: App) -> None:
    response = app.get(path)
    assert response.status_code == 404
    assert b"secret" not in response.get_data()


def test_the_pages_own_files_are_served(app: App) -> None:
    names = [path.name for path in assets.STATIC.iterdir()]
    assert "index.js" in names
    for name in names:
        response = app.get(name)
        assert response.status_code == 200
        assert response.get_data() == (assets.STATIC / name).read_bytes()
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_plotly_comes_compressed_and_is_kept(app: App) -> None:
    url = "/some/where/data/plugin/gradwatch/plotly.min.js"
    response = app.client.get(url, headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert "max-age=86400" in response.headers["Cache-Control"]
    library = assets.plotly_js()
    assert library is not None
    assert gzip.decompress(response.get_data()) == library.read_bytes()
    assert "plotly" not in sys.modules


def test_without_plotly_the_tab_says_what_to_install(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwatch.tensorboard_plugin.plugin.plotly_js", lambda: None)
    bare = App(app.provider)
    assert bare.answer("runs")["plotly"] is False
    assert bare.answer("plotly.min.js", 404)["error"] == 'the charts need plotly: pip install "gradwatch[tensorboard]"'


@pytest.mark.parametrize("name", list(SERVERS))
def test_a_run_is_seen_to_grow_and_to_be_resumed(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sink = write(run, LAYERS, norms()[:50], close=False)
    with SERVERS[name](tmp_path) as server:
        app = App(server.provider)
        until(server, lambda: [r["last"] for r in app.answer("runs")["runs"]] == [49])
        assert app.answer("overview", run="run")["steps"] == [*range(50)]
        sink.close()
        write(run, LAYERS, norms()[40:90], steps=range(40, 90), said={60: {"alerts": (replace(VANISHING, step=60),)}})
        write(tmp_path / "new", ("a",), [[1.0]])
        until(server, lambda: [r["last"] for r in app.answer("runs")["runs"]] == [0, 89])
        view = app.answer("overview", run="run")
        assert view["steps"] == [*range(90)]
        wanted = norms()[:90].T
        np.testing.assert_allclose(decoded(view["norm"]), np.log10(wanted), rtol=1e-5, atol=1e-5)
        assert [alert["step"] for alert in view["alerts"]] == [60]


def test_only_what_grew_is_read_again(tmp_path: Path) -> None:
    steps = [*range(0, 3 * tags.CHUNK_STEPS, 1000)]
    sink = write(tmp_path / "run", ("a",), np.ones((len(steps), 1)), steps=steps, close=False)
    with SERVERS["python"](tmp_path) as server:
        read_tags: list[str] = []
        original = server.provider.read_tensors

        def listening(*args: Any, run_tag_filter: Any, **kwargs: Any) -> Any:
            read_tags.extend(run_tag_filter.tags)
            return original(*args, run_tag_filter=run_tag_filter, **kwargs)

        server.provider.read_tensors = listening
        app = App(server.provider)
        app.answer("overview", run="run")
        assert sum(tag.startswith(tags.NORMS) for tag in read_tags) == 3
        read_tags.clear()
        app.answer("step", run="run", step=3)
        assert read_tags == []
        sink.write(write_report(steps[-1] + 1))
        until(server, lambda: app.answer("overview", run="run")["hi"] == steps[-1] + 1)
        assert [tag for tag in read_tags if tag.startswith(tags.NORMS)] == [
            tags.chunk_tag(tags.NORMS, steps[-1], ["a"])
        ]
        sink.close()


def write_report(step: int) -> Any:
    from gradwatch.records import Report
    from tests.event_logs import stats

    return Report("healthy", Severity.INFO, stats=stats(step, ("a",), [2.0]))


def test_a_data_server_that_fails_is_a_sentence_in_the_tab(app: App, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def list_tensors(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("the disk is gone")

    with caplog.at_level(logging.CRITICAL, logger="gradwatch"):
        answer = App(Failing()).answer("overview", 500, run="run")
    assert answer == {"error": "RuntimeError: the disk is gone"}


def test_a_truncated_log_is_shown_up_to_where_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "run", LAYERS, norms()[:50], close=False)
    (path,) = event_files(tmp_path / "run")
    path.write_bytes(path.read_bytes()[:-10])
    with SERVERS["python"](tmp_path) as server:
        assert App(server.provider).answer("overview", run="run")["hi"] == 48


@pytest.mark.parametrize("name", list(SERVERS))
@pytest.mark.parametrize(
    "event",
    [
        tensor_event("gradwatch/norms/x", GOOD, data=b"\0" * 8),
        tensor_event("gradwatch/norms/x", GOOD.replace(b"1,", b"99,")),
        tensor_event("gradwatch/norms/x", b"nonsense"),
        tensor_event("gradwatch/verdict", b'{"version": 1}'),
        tensor_event("gradwatch/alert_log/x", b'{"version": 1}'),
    ],
    ids=range(5),
)
def test_what_others_write_under_our_tags_is_not_shown(event: bytes, name: str, tmp_path: Path) -> None:
    write(tmp_path / "run", LAYERS, norms()[:20])
    (tmp_path / "other").mkdir()
    for directory in ("run", "other"):
        (tmp_path / directory / "events.out.tfevents.99.foreign").write_bytes(event)
    with SERVERS[name](tmp_path) as server:
        app = App(server.provider)
        until(server, lambda: any(run["last"] == 19 for run in app.answer("runs")["runs"]))
        assert app.answer("overview", run="run")["steps"] == [*range(20)]
        assert app.answer("report", run="run")["verdict"] == "healthy: 20 steps"
        assert "there is no run 'other'" in app.answer("report", 404, run="other")["error"]


def test_the_users_own_number_of_samples_stands() -> None:
    for given, wanted in ((None, SAMPLES), ({}, SAMPLES), ({"images": 3}, SAMPLES), ({"gradwatch": 7}, 7)):
        flags = argparse.Namespace(samples_per_plugin=given)
        Loader().fix_flags(flags)
        assert flags.samples_per_plugin["gradwatch"] == wanted
    assert flags.samples_per_plugin == {"gradwatch": 7}


def test_flags_of_another_kind_do_not_stop_tensorboard(caplog: pytest.LogCaptureFixture) -> None:
    Loader().fix_flags(argparse.Namespace(samples_per_plugin=3))
    assert "the Gradients tab shows only some steps" in caplog.text


@pytest.mark.parametrize("missing", ["werkzeug", "gradwatch.tensorboard_plugin.store"])
def test_a_plugin_that_cannot_be_loaded_does_not_stop_tensorboard(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "gradwatch.tensorboard_plugin.plugin", raising=False)
    monkeypatch.delattr("gradwatch.tensorboard_plugin.plugin", raising=False)
    assert Loader().load(argparse.Namespace()) is None
    assert "no Gradients tab" in caplog.text


def test_a_run_that_is_gone_is_told(tmp_path: Path) -> None:
    write(tmp_path / "run", ("a",), [[1.0]])
    with SERVERS["python"](tmp_path) as server:
        app = App(server.provider)
        app.answer("report", run="run")
        shutil.rmtree(tmp_path / "run")
    with SERVERS["python"](tmp_path) as server:
        assert "no run 'run'" in App(server.provider).answer("report", 404, run="run")["error"]
