from __future__ import annotations

import logging
import sys

import pytest

from gradwatch import Alert, Diagnosis, Report, Severity
from gradwatch.sinks import Console
from gradwatch.sinks.console import lines
from gradwatch.verdict import SHOWN


def alert(layer: str, rule: str = "dead", severity: Severity = Severity.WARNING, step: int = 7) -> Alert:
    return Alert(step, rule, layer, severity, 0.0, 0.0, f"{layer}: 100% zero [bold]")


def report(*alerts: Alert, severity: Severity = Severity.WARNING, evidence: tuple[str, ...] = ()) -> Report:
    diagnoses = (Diagnosis("cause", 0.9, (), evidence, "remedy"),) if evidence else ()
    return Report("verdict", severity, alerts, diagnoses)


def test_alerts_go_to_the_log_at_their_level(caplog: pytest.LogCaptureFixture) -> None:
    alerts = [alert("a", severity=severity) for severity in Severity]
    with caplog.at_level(logging.DEBUG, logger="gradwatch"):
        Console().write(report(*alerts))
    assert [(r.name, r.levelno, r.message) for r in caplog.records] == [
        ("gradwatch", logging.INFO, "step 7  INFO dead  a: 100% zero [bold]"),
        ("gradwatch", logging.WARNING, "step 7  WARNING dead  a: 100% zero [bold]"),
        ("gradwatch", logging.ERROR, "step 7  ERROR dead  a: 100% zero [bold]"),
    ]


def test_a_healthy_run_says_nothing(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG, logger="gradwatch"):
        Console().write(report(severity=Severity.INFO))
        Console().close()
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_less_than_the_least_severity_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    alerts = [alert("a", severity=severity) for severity in Severity]
    with caplog.at_level(logging.DEBUG, logger="gradwatch"):
        Console(min_severity=Severity.ERROR).write(report(*alerts))
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


def test_the_first_diagnosis_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="gradwatch"):
        Console().write(report(alert("a"), severity=Severity.ERROR, evidence=("one", "two")))
    said = caplog.records[-1]
    assert (said.levelno, said.message) == (logging.WARNING, "why: cause (90%): one; two; next: remedy")


def test_the_same_is_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    console = Console()
    with caplog.at_level(logging.DEBUG, logger="gradwatch"):
        for given in (report(alert("a"), evidence=("one",)), report(evidence=("one",)), report(evidence=("two",))):
            console.write(given)
    assert [r.message[:20] for r in caplog.records] == [
        "step 7  WARNING dead",
        "why: cause (90%): on",
        "why: cause (90%): tw",
    ]


def test_what_is_not_said_is_not_explained(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="gradwatch"):
        Console(min_severity=Severity.ERROR).write(report(alert("a"), evidence=("one",)))
        Console(min_severity=Severity.ERROR).write(report(evidence=("one",)))
    assert caplog.records == []


def test_many_layers_are_counted() -> None:
    ((_, line),) = lines([alert(f"fc{i}") for i in range(SHOWN + 5)])
    assert line.endswith(" (and 5 more layers)")
    assert [f"fc{i}:" in line for i in range(SHOWN + 1)] == [True] * SHOWN + [False]


def test_a_line_for_each_rule_severity_and_step() -> None:
    found = lines([alert("a"), alert("b"), alert("a", rule="spike"), alert("a", rule="spike", step=8)])
    assert [line.split("  ")[:2] for _, line in found] == [
        ["step 7", "WARNING dead"],
        ["step 7", "WARNING spike"],
        ["step 8", "WARNING spike"],
    ]


def test_on_a_terminal_lines_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda self: False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    Console().write(report(alert("a")))
    assert capsys.readouterr().err.strip() == "step 7  WARNING dead  a: 100% zero [bold]"


@pytest.mark.parametrize("terminal", [True, False])
def test_without_rich_or_a_terminal_lines_are_plain(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda self: False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    Console().write(report(alert("a"), alert("b", severity=Severity.INFO)))
    assert capsys.readouterr().err.splitlines() == [
        "step 7  WARNING dead  a: 100% zero [bold]",
        "step 7  INFO dead  b: 100% zero [bold]",
    ]


def test_a_level_that_the_user_has_set_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda self: False)
    for level, said in ((logging.ERROR, ""), (logging.INFO, "step 7  INFO dead  a: 100% zero [bold]\n")):
        logging.getLogger("gradwatch").setLevel(level)
        Console().write(report(alert("a", severity=Severity.INFO)))
        logging.getLogger("gradwatch").setLevel(logging.NOTSET)
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("value", ["warning", 7, None])
def test_the_least_severity_is_a_severity(value: object) -> None:
    with pytest.raises(ValueError, match=r"Console: min_severity must be a gradwatch.Severity, got"):
        Console(min_severity=value)  # type: ignore[arg-type]
