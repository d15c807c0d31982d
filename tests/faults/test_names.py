"""Layers with hostile names: they come back as they were, none is taken for another, and nothing in them is obeyed."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as RichConsole
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import nn

import gradwatch as gw
from gradwatch import tags
from gradwatch.demo import screen
from gradwatch.sinks import numbers, summaries
from gradwatch.tags import printable
from tests.norm_table import read_norms

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # TensorBoard's own, of what it brings along
    from tensorboard import plugin_util

NAMES = (
    "a/b",
    "a|b",
    "a%7Cb",
    "a\\b",
    "/",
    "//",
    "%",
    "a b",
    "a  b",
    " a b",
    "Schicht ü",
    "Schicht u\u0308",
    "層",
    "\U0001f525",
    "n" * 300,
    "n" * 299 + "/",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "&#60;b&#62;",
    "javascript:alert(1)",
    "[x](javascript:alert(1))",
    "![x](http://example/x)",
    "<http://example>",
    "| --- |",
    "`code`",
    "```",
    "*_~**strong**~_*",
    "# title",
    "===",
    "> quote",
    "1) item",
    "\"quoted\", 'twice'",
    "[bold red]rich[/]",
    "[/]",
    ":fire:",
    "%(levelname)s {0} $HOME",
    "a\nb",
    "a\\nb ",
    "a\r\nb",
    "a\tb",
    "a\0b",
    "a\x02b\x03",
    "\x1b[31mred\x1b]0;title\x07",
    "a\x7f\x85\u2028\u2029b",
    "a\u202eb\u200d",
    "\ud800",
    "step",
    "nan",
)
"""Every one is a name that ``nn.Module.add_module`` takes."""


def short(name: str) -> str:
    return ascii(name)[1:21]


class Hostile(nn.Module):
    """A layer of each name, of one weight each, whose gradient is the number of the layer."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self.add_module(name, nn.Linear(1, 1, bias=False))

    def forward(self) -> torch.Tensor:
        return torch.stack([i * layer.weight.sum() for i, layer in enumerate(self.children(), start=1)]).sum()


class Everywhere:
    """Finds something in every layer, and says its name."""

    def check(self, history: gw.History) -> list[gw.Alert]:
        step = int(history.steps[-1])
        return [gw.Alert(step, "named", name, gw.Severity.WARNING, 1.0, 0.0, said(name)) for name in history.layers]


def said(name: str) -> str:
    return f"{name}: found"


def watched(*sinks: gw.sinks.Sink) -> gw.Report:
    """The report of one strict step of the hostile model."""
    model = Hostile()
    with gw.Monitor(model, sinks=sinks, rules=[Everywhere()], diagnose=False, strict=True) as monitor:
        model().backward()
        monitor.step()
    return monitor.report()


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> EventAccumulator:
    """What TensorBoard reads of it."""
    watched(gw.sinks.TensorBoard(directory := tmp_path_factory.mktemp("run")))
    return EventAccumulator(str(directory)).Reload()


def name_of(tag: str) -> str:
    return unquote(tag.partition("/")[2].replace("|", "/"), errors="surrogatepass")


def shown(name: str) -> str:
    """The name as it is printed, and as HTML lays it out: spaces in a row are one."""
    return " ".join(printable(name).split())


def test_every_series_has_the_name_and_the_numbers_of_its_layer(events: EventAccumulator) -> None:
    scalars = [tag for tag in events.Tags()["scalars"] if tag.startswith(f"{tags.LAYER_NORM}/")]
    assert {name_of(tag): events.Scalars(tag)[0].value for tag in scalars} == {n: i for i, n in enumerate(NAMES, 1)}
    histograms = events.Tags()["histograms"]
    assert sorted(map(name_of, histograms)) == sorted(NAMES)
    for tag in histograms:
        assert (value := events.Histograms(tag)[0].histogram_value).num == 1
        magnitude = np.log10(NAMES.index(name_of(tag)) + 1)
        assert value.min <= magnitude <= value.max
    assert all(tag.count("/") == 1 and tag.isprintable() for tag in [*scalars, *histograms])


def test_the_tensors_name_their_layers(events: EventAccumulator) -> None:
    table = read_norms(events.path)
    assert table.layers == NAMES
    np.testing.assert_array_equal(table.grad_norm, [np.arange(1, len(NAMES) + 1)])


@given(st.text(), st.text())
def test_two_names_have_two_tags(name: str, other: str) -> None:
    tag = tags.layer_tag(tags.LAYER_NORM, name)
    assert name_of(tag) == name
    assert (tag == tags.layer_tag(tags.LAYER_NORM, other)) == (name == other)
    assert (tags.chunk_tag("x", 0, [name, other]) == tags.chunk_tag("x", 0, [f"{name}\n{other}"])) is False


class Page(HTMLParser):
    """The elements of a page, and its text cell by cell and line by line."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.cells = [""]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("td", "th", "br"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.cells[-1] += data


def page(markdown: str) -> Page:
    """How TensorBoard's Text tab shows ``markdown``."""
    return Page(plugin_util.markdown_to_safe_html(markdown))


def test_the_alert_table_shows_names_and_nothing_else(events: EventAccumulator) -> None:
    (event,) = events.Tensors(f"{tags.ALERTS}/text_summary")
    found = page(make_ndarray(event.tensor_proto).item().decode())
    assert found.elements == {"table", "thead", "tbody", "tr", "th", "td"}
    assert found.attributes <= {"align", "style"}
    cells = [" ".join(cell.split()) for cell in found.cells[1:]]
    rows = [tuple(cells[i : i + 5]) for i in range(5, len(cells), 5)]
    assert rows == [("0", "warning", "named", shown(name), shown(said(name))) for name in reversed(NAMES)]


@pytest.mark.parametrize("name", NAMES, ids=short)
def test_the_report_in_the_text_tab_shows_names_and_nothing_else(name: str) -> None:
    """A line of its own for each section, whatever the lines begin with."""
    why = gw.Diagnosis(name, 0.5, (name,), (name, f"{name} and {name}"), name)
    found = page(summaries.report_text(gw.Report(name, gw.Severity.ERROR, diagnoses=(why,))))
    assert found.elements == {"p", "strong", "br"}
    assert found.attributes == set()
    text = " ".join(" ".join(found.cells).split())
    cause = shown(name.replace("_", " "))
    expected = (
        "Verdict",
        name,
        "Why",
        f"{cause} (confidence 50%)",
        "Evidence",
        name,
        f"{name} and {name}",
        "Next",
        name,
    )
    assert text == " ".join(" ".join(map(shown, expected)).split())


def test_lines_of_json_hold_the_names_themselves(tmp_path: Path) -> None:
    watched(gw.sinks.JSONL(tmp_path / "gradients.jsonl"))
    (line,) = (tmp_path / "gradients.jsonl").read_bytes().splitlines()
    found = json.loads(line)
    assert tuple(found["stats"]["layers"]) == NAMES
    assert [(alert["layer"], alert["message"]) for alert in found["alerts"]] == [(n, said(n)) for n in NAMES]


def console(name: str) -> None:
    alert = gw.Alert(7, "named", name, gw.Severity.WARNING, 1.0, 0.0, said(name))
    why = gw.Diagnosis("cause", 0.5, (name,), (name,), "remedy")
    gw.sinks.Console().write(gw.Report("verdict", gw.Severity.WARNING, (alert,), (why,)))


@pytest.mark.parametrize("name", NAMES, ids=short)
def test_the_console_logs_a_name_on_one_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="gradwatch"):
        console(name)
    assert [record.getMessage() for record in caplog.records] == [
        f"step 7  WARNING named  {printable(said(name))}",
        f"why: cause (50%): {printable(name)}; next: remedy",
    ]
    assert all(record.getMessage().isprintable() for record in caplog.records)


@pytest.mark.parametrize("name", NAMES, ids=short)
def test_a_terminal_gets_a_name_as_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither rich nor the terminal finds a colour, an emoji or a line end in it."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda self: False)
    for variable, value in {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(variable, value)
    console(name)
    why = f"why: cause (50%): {printable(name)}; next: remedy"
    assert capsys.readouterr().err == f"step 7  WARNING named  {printable(said(name))}\n{why}\n"


def test_the_demo_shows_names_as_they_are() -> None:
    out = io.StringIO()
    rich = RichConsole(file=out, width=1000, color_system=None)
    rich.print(screen.norms("layer", NAMES, [0.5] * len(NAMES)))
    lines = out.getvalue().split("\n")[1:-1]
    assert [line.split("0.5")[0][1:].rstrip() for line in lines] == [printable(name).rstrip() for name in NAMES]


@pytest.mark.parametrize("name", NAMES, ids=short)
def test_a_warning_says_a_name_as_it_is(name: str) -> None:
    faults = gw.faults.Faults(strict=False)
    with pytest.warns(gw.faults.GradwatchWarning) as caught:
        faults.run("rule R", "it is dropped", _fail, name, otherwise=None)
    lines = "\n".join(printable(line) for line in name.split("\n"))
    assert str(caught[0].message) == f"gradwatch: rule R failed, it is dropped: ValueError: {lines}"


def _fail(words: str) -> None:
    raise ValueError(words)


def test_a_report_is_printed_line_by_line() -> None:
    for name in NAMES:
        why = gw.Diagnosis("cause", 0.5, (name,), (name,), name)
        lines = str(gw.Report(name, gw.Severity.ERROR, diagnoses=(why,))).split("\n")
        assert lines == [
            f"Verdict   {printable(name)}",
            "Why       cause (confidence 50%)",
            f"Evidence  {printable(name)}",
            f"Next      {printable(name)}",
        ]


def test_loggers_of_lightning_get_keys_that_stay_apart(tmp_path: Path) -> None:
    loggers = pytest.importorskip("pytorch_lightning.loggers")
    memory = gw.sinks.Memory()
    watched(memory)
    logger = loggers.CSVLogger(tmp_path, name="", version="")
    logger.log_metrics(numbers.layer_norms(memory.reports[0].stats), step=0)
    logger.save()
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert {name_of(key): float(value) for key, value in row.items() if key != "step"} == {
        name: i for i, name in enumerate(NAMES, start=1)
    }
