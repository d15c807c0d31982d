"""The report in one file: what is in it, whatever the names are; test_browser.py opens it."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gradwatch.tensorboard_plugin import assets, html, tables, views
from tests.tensorboard_plugin.logs import HOSTILE, write


class Scripts(HTMLParser):
    """The scripts of a page by id, type or number, as a browser would cut them; and every other element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self._key = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        if tag == "script":
            self._key = words.get("id") or words.get("type") or "plotly"
        else:
            self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        if self._key:
            self.scripts[self._key] = self.scripts.get(self._key, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._key = ""


@pytest.fixture
def run(tmp_path: Path) -> tables.Tables:
    norms = np.full((30, len(HOSTILE)), 0.5)
    norms[3, 1] = np.nan
    write(tmp_path / "run", HOSTILE, norms)
    return tables.read(tmp_path / "run")


def test_all_that_a_browser_needs_is_in_it(run: tables.Tables) -> None:
    found = Scripts(html.page({"run": run}))
    assert found.addresses == []
    assert set(found.elements) == {"html", "head", "meta", "title", "style", "body"}
    library = assets.plotly_js()
    assert library is not None
    assert found.scripts["plotly"] == library.read_text(encoding="utf-8")
    modules = json.loads(found.scripts["importmap"])["imports"]
    assert set(modules) == {f"gradwatch/{path.name}" for path in assets.STATIC.glob("*.js")}
    for address in modules.values():
        source = base64.b64decode(address.removeprefix("data:text/javascript;base64,")).decode()
        for name in re.findall(r"""\bfrom\s+['"]([^'"]+)""", source) + re.findall(
            r"""\bimport\(['"]([^'"]+)""", source
        ):
            assert name in modules


def test_the_answers_are_those_of_the_tab(run: tables.Tables) -> None:
    data = json.loads(Scripts(html.page({"a": run, "b": run})).scripts["gradwatch-data"])
    assert [one["name"] for one in data["runs"]] == ["a", "b"]
    for (name, answers), expected in zip(data["answers"], "ab"):
        assert name == expected
        assert answers["overview"] == views.overview(run, columns=html.COLUMNS, least=False)
        assert answers["steps"] == [views.step(run, 29), views.step(run, 0)]
        assert [one["layer"] for one in answers["layers"]] == list(HOSTILE)
        assert answers["report"] == views.report(run)
        assert answers["profiles"] == []


def test_no_name_ends_the_script_around_it(run: tables.Tables) -> None:
    name = "</script><script>alert(1)</script><!--"
    page = html.page({name: run})
    found = Scripts(page)
    assert json.loads(found.scripts["gradwatch-data"])["runs"][0]["name"] == name
    assert len(found.scripts) == 4
    assert "<title>Gradients of &lt;/script&gt;" in page


def test_the_page_may_fetch_nothing(run: tables.Tables) -> None:
    assert "default-src 'none'; script-src 'unsafe-inline' data:;" in html.page({"run": run})


def test_a_run_with_many_layers_stays_a_few_megabytes(tmp_path: Path) -> None:
    write(tmp_path / "run", tuple(f"layer{i}" for i in range(3000)), np.full((50, 3000), 0.5))
    data = Scripts(html.page({"run": tables.read(tmp_path / "run")})).scripts["gradwatch-data"]
    assert len(data) < 6e6
    answers = json.loads(data)["answers"][0][1]
    assert sum(answers["overview"]["counts"]) == 3000
    assert len(answers["layers"]) == html.MAX_LAYERS


def test_no_runs_and_no_plotly_are_said(run: tables.Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^runs must hold at least one run, got none$"):
        html.page({})
    monkeypatch.setattr(html, "plotly_js", lambda: None)
    with pytest.raises(html.PlotlyMissingError, match=r"gradwatch\[tensorboard\]"):
        html.page({"run": run})
