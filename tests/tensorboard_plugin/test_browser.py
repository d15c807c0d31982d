"""The Gradients tab in a real browser, before a real TensorBoard: what is drawn is what was written."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradwatch.records import Severity
from gradwatch.tensorboard_plugin import html, tables
from tests.tensorboard_plugin.browser import Tab, tensorboard, until
from tests.tensorboard_plugin.logs import HOSTILE, Written, write, write_all

pytestmark = pytest.mark.slow
ODD = "odd & <b>bold"
BACKGROUNDS = """const plot = document.getElementById('timeline-0');
    return [getComputedStyle(document.body).backgroundColor, plot.layout.plot_bgcolor];"""
SPIKE, NAN_STEP, LONG_SPIKE = 150, 300, 1234


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser") / "logs"


@pytest.fixture(scope="module")
def written(logdir: Path) -> dict[str, Written]:
    return write_all(logdir)


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    tab = Tab()
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def address(logdir: Path, written: dict[str, Written], browser: Tab) -> Iterator[str]:
    with tensorboard(logdir, prefix="/some/where") as found:
        yield found


@pytest.fixture
def tab(browser: Tab, address: str) -> Iterator[Tab]:
    browser.driver.set_window_size(1400, 1000)
    browser.complaints()
    yield browser
    assert not (said := browser.complaints()), "\n".join(said)


def logs(norms: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(norms) & (norms > 0), np.log10(norms), np.nan)


def drawn_norms(tab: Tab, plot: str = "timeline-0") -> Any:
    return np.array(tab.trace("norm", plot)["z"], np.float64)


def test_what_is_drawn_is_what_was_written(tab: Tab, address: str, written: dict[str, Written]) -> None:
    tab.open(address, run="story/sick", step=200, layer="fc5")
    sick = written["story/sick"]
    np.testing.assert_allclose(drawn_norms(tab), logs(sick.norms).T, atol=1e-5)
    np.testing.assert_allclose(tab.trace("norm")["x"], np.arange(-0.5, 360))
    assert tab.js("return document.getElementById('timeline-0').layout.yaxis2.ticktext") == list(sick.layers)
    total = [report.stats.total_norm for report in sick.reports if report.stats]
    np.testing.assert_allclose(np.array(tab.trace("total norm")["y"], float), logs(np.array(total)), atol=1e-5)
    coefficients = [report.clip.coefficient for report in sick.reports if report.clip]
    assert min(c for c in coefficients if c == c) < 0.1  # the spike was clipped
    np.testing.assert_allclose(np.array(tab.trace("clip coefficient")["y"], float), coefficients, rtol=1e-5)

    assert tab.text("#step-title") == "Step 200"
    np.testing.assert_allclose(tab.trace("story/sick", "step-plot")["y"], logs(sick.norms[200]), atol=1e-5)
    assert tab.text("#layer-title") == "Layer fc5"
    middle = np.array(tab.trace("story/sick", "layer-plot")["y"], float)
    np.testing.assert_allclose(middle, logs(sick.norms[:, 4]), atol=1e-5)
    cells = tab.js(
        "return [...document.querySelectorAll('table.layers tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert [row[0] for row in cells] == list(sick.layers)
    np.testing.assert_allclose([float(row[1]) for row in cells], sick.norms[200], rtol=0.06)  # two digits


def test_the_verdict_is_on_top_in_words(tab: Tab, address: str, written: dict[str, Written]) -> None:
    tab.open(address, run="story/sick")
    report = written["story/sick"].reports[-1]
    assert tab.text(".sentence") == report.verdict
    assert tab.text(".verdict header").startswith("✖Will not train")
    assert report.severity is Severity.ERROR
    found = [alert for one in written["story/sick"].reports for alert in one.alerts if alert.rule == "vanishing"]
    assert f"since step {found[0].step}" in tab.text(".verdict .episodes")


def test_every_alert_is_listed_and_on_the_time_axis(tab: Tab, address: str, written: dict[str, Written]) -> None:
    tab.open(address, run="story/sick")
    alerts = [alert for report in written["story/sick"].reports for alert in report.alerts]
    opened = [alert for alert in alerts if alert.severity > Severity.INFO]
    assert {"vanishing", "nonfinite"} <= {alert.rule for alert in opened}
    listed = " ".join(tab.texts(".alerts .episode"))
    shown = {(x, y) for s in ("error", "warning") for x, y in _points(tab, f"{s} alerts")}
    lanes = tab.js("return document.getElementById('timeline-0').layout.yaxis.ticktext")
    for alert in opened:
        assert alert.rule.replace("_", " ") in listed
        assert re.search(rf"steps? {alert.step}(?!\d)", listed)
        assert (alert.step, lanes.index(alert.rule.replace("_", " "))) in shown
    nonfinite = next(alert for alert in opened if alert.rule == "nonfinite")
    assert (nonfinite.step, 8) in set(_points(tab, "alerts"))  # on the row of fc9, which it names
    assert nonfinite.layer == "fc9"


def test_a_warning_goes_on_as_an_error(tab: Tab, address: str) -> None:
    tab.open(address, run="story/sick")
    told = [(5, "warning", "dead", ["a", "b"]), (5, "warning", "spike", []), (9, "error", "dead", ["b"])]
    told += [(12, "error", "dead", ["a"]), (20, "info", "dead", ["a", "b"])]
    alerts = [{"step": step, "severity": s, "rule": rule, "layers": names} for step, s, rule, names in told]
    found = {}
    for count in range(3, 6):
        script = (
            "const told = arguments[0]; const loaded = performance.getEntriesByType('resource').map(({name}) => name);"
        )
        script += "return import(loaded.find((name) => name.endsWith('/alerts.js')))"
        script += ".then(({episodes}) => episodes(told))"
        found[count] = [(e["severity"], e["start"], e["end"], e["raised"]) for e in tab.js(script, alerts[:count])]
    spike = ("warning", 5, 5, False)
    assert found[3] == [("error", 9, None, False), ("warning", 5, None, False), spike]
    assert found[4] == [("error", 9, None, False), ("error", 12, None, False), ("warning", 5, 12, True), spike]
    assert found[5] == [("error", 9, 20, False), ("error", 12, 20, False), ("warning", 5, 12, True), spike]


def _points(tab: Tab, name: str) -> list[tuple[int, int]]:
    plots = tab.js("return document.getElementById('timeline-0').data.map(t => t.name)")
    if name not in plots:
        return []
    trace = tab.trace(name)
    return list(zip(trace["x"], trace["y"]))


def test_a_nan_is_seen(tab: Tab, address: str) -> None:
    tab.open(address, run="story/sick")
    assert np.isnan(drawn_norms(tab)[8, NAN_STEP])
    assert (NAN_STEP, 8) in _points(tab, "NaN")
    assert "NaN" in tab.text(".legend")


def test_nan_inf_zero_and_no_gradient_differ_without_colour(tab: Tab, address: str) -> None:
    tab.open(address, run=ODD)
    symbols = set()
    for row, (name, first) in enumerate((("NaN", 10), ("inf", 20), ("zero", 30), ("no gradient", 40))):
        trace = tab.trace(name)
        assert set(trace["y"]) == {row}
        assert min(trace["x"]) == first
        assert max(trace["x"]) < first + 10
        assert name in tab.text(".legend")
        symbols.add(trace["symbol"])
    assert len(symbols) == 4


def test_a_spike_of_one_step_survives_few_columns(tab: Tab, address: str, written: dict[str, Written]) -> None:
    tab.driver.set_window_size(720, 1000)
    tab.open(address, run="long")
    norms, x = drawn_norms(tab), np.array(tab.trace("norm")["x"])
    pixels = tab.js("return document.getElementById('timeline-0')._fullLayout.xaxis._length")
    assert 100 < norms.shape[1] <= pixels < 3000
    row, column = np.unravel_index(np.nanargmax(norms), norms.shape)
    assert (row, x[column] < LONG_SPIKE < x[column + 1]) == (20, True)
    assert norms[row, column] == pytest.approx(np.log10(50.0), abs=1e-5)
    # and the browser paints it: the pixel there is of another colour than those beside it
    left, top = tab.place((x[column] + x[column + 1]) / 2, 20)
    picture = Image.open(io.BytesIO(tab.driver.get_screenshot_as_png())).convert("RGB")
    strip = [picture.getpixel((left + dx, top)) for dx in range(-9, 10)]
    distances = [max(abs(a - b) for a, b in zip(pixel, strip[0])) for pixel in strip]
    assert max(distances[6:13]) > 60
    assert max(distances[:5] + distances[14:]) < 40


def test_the_gains_of_a_probed_backward_pass_are_split_by_kind(
    tab: Tab, address: str, written: dict[str, Written]
) -> None:
    profile = next(report.profile for report in written["story/sick"].reports if report.profile)
    tab.open(address, run="story/sick", step=profile.step)
    for kind in ("activation", "weight"):
        bars = tab.trace(kind, "gains-plot")["y"]
        expected = [s.log_gain / (2 * np.log(10)) for s in profile.segments[::-1] if s.kind == kind]
        np.testing.assert_allclose(bars, expected, rtol=1e-9)
        assert f"{kind} times" in tab.text(".kinds")


def test_clicking_a_cell_shows_its_step_and_layer(tab: Tab, address: str) -> None:
    tab.open(address, run="story/sick")
    with tab.redraws():
        tab.click(100, 6)
    assert tab.text("#layer-title") == "Layer fc7"
    assert abs(int(tab.text("#step-title").removeprefix("Step ")) - 100) <= 1
    assert "p.gradwatch.layer=fc7" in tab.hash()
    with tab.redraws():
        tab.js("document.querySelectorAll('table.layers tbody tr')[2].click()")
    assert tab.text("#layer-title") == "Layer fc3"
    assert tab.js("return document.querySelector('tr.chosen').rowIndex") == 3


def test_keys_move_the_step_and_the_layer_and_zoom(tab: Tab, address: str) -> None:
    tab.open(address, run="story/sick", step=100, layer="fc4")
    for key, step, layer in (
        ("\ue014", "101", "fc4"),
        ("\ue015", "101", "fc5"),
        ("\ue012", "100", "fc5"),
        ("\ue013", "100", "fc4"),
    ):
        with tab.redraws():
            tab.press(key)
        assert (tab.text("#step-title"), tab.text("#layer-title")) == (f"Step {step}", f"Layer {layer}")
    assert tab.text("[aria-live]").startswith("fc4, step 100: norm")
    with tab.redraws():
        tab.press("+")
    assert "p.gradwatch.lo=10" in tab.hash()
    with tab.redraws():
        tab.press("\ue00c")
    assert "p.gradwatch.lo" not in tab.hash()


def test_zoom_asks_again_at_full_resolution(tab: Tab, address: str, written: dict[str, Written]) -> None:
    tab.driver.set_window_size(720, 1000)
    tab.open(address, run="long")
    assert len(tab.trace("norm")["x"]) < 1000
    with tab.redraws():
        tab.drag(1180, 1300, 10)
    x = np.array(tab.trace("norm")["x"])
    lo, hi = int(x[0] + 0.5), int(x[-1] - 0.5)
    assert 1165 < lo < 1195 < 1285 < hi < 1315
    np.testing.assert_allclose(drawn_norms(tab), logs(written["long"].norms[lo : hi + 1]).T, atol=1e-5)
    assert f"p.gradwatch.lo={lo}&p.gradwatch.hi={hi}" in tab.hash()
    with tab.redraws():
        tab.double_click(1240, 10)
    assert "p.gradwatch.lo" not in tab.hash()
    assert tab.trace("norm")["x"][0] == -0.5


def test_a_link_restores_what_was_shown(tab: Tab, address: str) -> None:
    tab.open(address, run="story/sick")
    with tab.redraws():
        tab.choose("other", "story/well")
    with tab.redraws():
        tab.click(50, 2)
    with tab.redraws():
        tab.type("find", "FC1")
    with tab.redraws():
        tab.js("[...document.querySelectorAll('thead button')].find(b => b.textContent === 'Gradient norm').click()")
    link = tab.js("return window.parent.location.href")
    seen = _seen(tab)
    assert seen["rows"] == ["fc1", "fc10", "fc11"]
    tab.driver.get("about:blank")
    tab.driver.get(link)
    until(lambda: tab.driver.find_elements("css selector", "iframe"), "the tab's frame")
    tab.driver.switch_to.frame(tab.driver.find_element("css selector", "iframe"))
    until(tab.drawn, "a drawing")
    assert _seen(tab) == seen


def _seen(tab: Tab) -> dict[str, Any]:
    return {
        "titles": tab.texts(".panel h2"),
        "rows": tab.texts("table.layers tbody th"),
        "runs": tab.js("return [document.getElementById('run').value, document.getElementById('other').value]"),
        "find": tab.js("return document.getElementById('find').value"),
        "sorted": tab.js("return document.querySelector('[aria-sort=ascending]').textContent"),
        "norms": json.dumps([tab.trace("norm", f"timeline-{i}")["z"] for i in (0, 1)]),
    }


def test_two_runs_side_by_side(tab: Tab, address: str, written: dict[str, Written]) -> None:
    tab.open(address, run="story/sick", other="story/well", step=10)
    for i, name in enumerate(("story/sick", "story/well")):
        np.testing.assert_allclose(drawn_norms(tab, f"timeline-{i}"), logs(written[name].norms).T, atol=1e-5)
        np.testing.assert_allclose(tab.trace(name, "step-plot")["y"], logs(written[name].norms[10]), atol=1e-5)
    boxes = tab.js(
        """return [...document.querySelectorAll('.timeline')].map((plot) => {
               const {left, top, height} = plot.getBoundingClientRect();
               return [left, top, height];
           });"""
    )
    assert boxes[0][1:] == boxes[1][1:]
    assert boxes[1][0] > boxes[0][0] + 500
    ranges = tab.js(
        "return [0, 1].map(i => document.getElementById(`timeline-${i}`).data[0]).map(t => [t.zmin, t.zmax])"
    )
    assert ranges[0] == ranges[1]
    assert len(tab.texts(".verdict")) == 2


def test_layers_are_filtered_and_sorted(tab: Tab, address: str, written: dict[str, Written]) -> None:
    tab.open(address, run="long", find="3", step=7, sort="norm", reverse=1)
    long = written["long"]
    kept = [i for i, layer in enumerate(long.layers) if "3" in layer]
    np.testing.assert_array_equal(drawn_norms(tab).shape[0], len(kept))
    by_norm = sorted(kept, key=lambda i: -long.norms[7, i])
    assert tab.texts("table.layers tbody th") == [long.layers[i] for i in by_norm]
    with tab.redraws():
        tab.type("find", "nothing")
    assert tab.texts(".message h2") == ["No such layer"]


def test_dark_as_tensorboard_is(tab: Tab, address: str) -> None:
    tab.open(address, run="story/well")
    light = tab.js(BACKGROUNDS)
    with tab.redraws():
        tab.outside("window.parent.document.body.classList.toggle('dark-mode')")
    dark = tab.js(BACKGROUNDS)
    assert dark == ["rgb(48, 48, 48)", "#2a2a2a"]
    assert light != dark
    with tab.redraws():
        tab.outside("window.parent.document.body.classList.toggle('dark-mode')")


def test_names_are_shown_and_never_obeyed(tab: Tab, address: str) -> None:
    tab.open(address, run=ODD, layer=HOSTILE[0])
    rows = tab.texts("table.layers tbody th")
    assert rows == [HOSTILE[0], HOSTILE[1], "\\u{202e}gnp.exe", HOSTILE[3], HOSTILE[4]]
    assert tab.text("#layer-title") == f"Layer {HOSTILE[0]}"
    assert tab.js("return document.querySelectorAll('img, b b, main script').length") == 0
    ticks = tab.js("return [...document.querySelectorAll('#timeline-0 .y2tick text')].map(t => t.textContent)")
    assert ticks[0] == HOSTILE[0]
    assert ticks[1] == HOSTILE[1]
    assert tab.js("return document.getElementById('run').selectedOptions[0].textContent") == ODD


def test_what_cannot_be_shown_is_said(tab: Tab, address: str) -> None:
    tab.open(address, run="no such run")
    assert tab.text(".notice") == "There is no run no such run here."
    assert "foreign" not in tab.texts("#run option")
    assert tab.js("return document.getElementById('run').value") == "story/sick"  # the worst, in its place
    tab.open(address, run="long", lo="nonsense", hi="1e999", step="<b>")
    assert tab.js("return document.getElementById('zoomed') === null")
    assert tab.text("#step-title") == "Step 2,999"


def test_an_error_of_the_server_is_a_sentence(tab: Tab, address: str) -> None:
    tab.open(address, run="long")
    tab.js("window.parent.location.hash = '#gradwatch&p.gradwatch.run=long&p.gradwatch.lo=90000'")
    assert until(lambda: tab.texts(".message p"), "a message") == ["no step was recorded from 90000 to the last"]
    severe = tab.complaints()
    assert len(severe) == 1  # the browser's own line on the 404
    assert "404" in severe[0]


def test_without_plotly_the_words_and_the_table_are_there(tab: Tab, address: str) -> None:
    tab.driver.execute_cdp_cmd("Network.enable", {})
    tab.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*plotly.min.js*"]})
    try:
        tab.open(address, run="story/sick")
        assert tab.text(".notice") == "No pictures: plotly.min.js could not be loaded."
        assert tab.text(".sentence").startswith("vanishing")
        assert len(tab.texts("table.layers tbody tr")) == 12
    finally:
        tab.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    assert all("plotly.min.js" in line for line in tab.complaints())


def test_new_steps_are_shown_when_tensorboard_reloads(tab: Tab, address: str, logdir: Path) -> None:
    write(logdir / "live", ("a", "b"), np.full((20, 2), 0.5))
    reload = "window.parent.document.querySelector('[title=\"Reload data\"], .reload-button').click()"

    def listed(name: str) -> bool:
        tab.outside(reload)
        return name in tab.js("return [...document.querySelectorAll('#run option')].map(o => o.value)")

    tab.open(address, run="long")
    until(lambda: listed("live"), "the new run")
    tab.open(address, run="live")
    assert tab.text("#step-title") == "Step 19"
    write(logdir / "live", ("a", "b"), np.full((5, 2), 5.0), first=20)

    def latest() -> bool:
        tab.outside(reload)
        return tab.text("#step-title") == "Step 24"

    until(latest, "the new steps")
    np.testing.assert_allclose(drawn_norms(tab)[0, -6:], np.log10([0.5] + 5 * [5.0]), atol=1e-5)


def test_the_report_in_a_file_shows_the_same(tab: Tab, address: str, logdir: Path, written: dict[str, Written]) -> None:
    page = logdir.parent / "report.html"
    names = ["story/sick", "story/well", ODD]
    page.write_text(html.page({name: tables.read(logdir / name) for name in names}), encoding="utf-8")
    tab.open(page.as_uri(), run="story/sick", other="story/well", step=SPIKE, layer="fc5", lo=100, hi=320)
    assert tab.text(".sentence") == written["story/sick"].reports[-1].verdict
    for i, name in enumerate(names[:2]):
        norms = logs(written[name].norms)
        np.testing.assert_allclose(drawn_norms(tab, f"timeline-{i}"), norms[100:321].T, atol=1e-5)
        np.testing.assert_allclose(tab.trace(name, "step-plot")["y"], norms[SPIKE], atol=1e-5)
        np.testing.assert_allclose(np.array(tab.trace(name, "layer-plot")["y"], float), norms[100:321, 4], atol=1e-5)
    assert (NAN_STEP, 8) in _points(tab, "NaN")
    with tab.redraws():
        tab.double_click(200, 3)
    assert drawn_norms(tab).shape == (12, 360)
    tab.open(page.as_uri(), run=ODD, find="AMP")
    assert tab.texts("table.layers tbody th") == ["a&amp;b"]
    assert tab.js("return document.querySelectorAll('img, main script').length") == 0


def test_pythons_own_data_server_shows_the_same(tab: Tab, logdir: Path, written: dict[str, Written]) -> None:
    with tensorboard(logdir, "--load_fast", "false") as address:
        tab.open(address, run="story/sick")
        np.testing.assert_allclose(drawn_norms(tab), logs(written["story/sick"].norms).T, atol=1e-5)
        assert (NAN_STEP, 8) in _points(tab, "NaN")
