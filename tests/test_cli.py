from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gradwatch
from gradwatch import demo
from gradwatch.cli import main
from tests.event_logs import VANISHING, write

RUNS = {
    "vanishing": ["sigmoid", "relu_he"],
    "exploding": ["large_weights", "clipped", "he"],
    "rnn": ["tanh_rnn", "gru_open_gate"],
    "healthy": ["layernorm_mlp", "transformer"],
}


def test_every_story_has_a_name_and_every_name_a_story() -> None:
    from gradwatch.demo.stories import STORIES

    assert tuple(STORIES) == demo.NAMES == tuple(RUNS)


@pytest.mark.parametrize("story", demo.NAMES)
def test_a_demo_shows_and_logs_each_run(story: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", story, "--logdir", str(tmp_path), "--steps", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\nVerdict") == len(RUNS[story])
    assert shown.splitlines()[-1] == f"tensorboard --logdir {tmp_path}"
    for run in RUNS[story]:
        assert run.replace("_", " ") in shown
        assert len(list((tmp_path / story / run).glob("events.out.tfevents.*"))) == 1


def test_the_default_story_lists_every_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--logdir", str(tmp_path), "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    for layer in ["fc1", "fc10", "out"]:
        assert shown.count(f" {layer} ") >= 2  # once per run


def test_a_second_demo_replaces_the_first_and_touches_nothing_else(tmp_path: Path) -> None:
    (kept := tmp_path / "vanishing" / "sigmoid" / "notes.txt").parent.mkdir(parents=True)
    kept.write_text("mine")
    for seed in ["0", "1"]:
        main(["demo", "--logdir", str(tmp_path), "--steps", "1", "--seed", seed])
    assert len(list(kept.parent.glob("events.out.tfevents.*"))) == 1
    assert kept.read_text() == "mine"


def test_a_place_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--logdir", str(tmp_path / "file")]) == 1
    found = capsys.readouterr()
    place = str(tmp_path / "file" / "vanishing")
    assert found.err == f"gradwatch: --logdir: cannot write to {place!r}: Not a directory\n"
    assert found.out == ""


@pytest.mark.parametrize("package", ["rich", "sklearn", "tensorboard"])
def test_a_missing_extra_is_named(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom gradwatch.cli import main\nsys.exit(main(['demo']))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr.startswith('gradwatch: the demo needs: pip install "gradwatch[demo]" (')
    assert package in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--steps", "0"], "argument --steps: must be a whole number from 1 to 1000000, got '0'"),
        (["demo", "--seed", "1.5"], "argument --seed: must be a whole number from 0"),
        (["demo", "--seed", str(2**64)], f"got '{2**64}'"),
        (["demo", "sunny"], "invalid choice: 'sunny'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"gradwatch {gradwatch.__version__}\n"


def test_stopped_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gradwatch.demo import stories

    def stop(stage: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(stories.STORIES, "healthy", stop)
    assert main(["demo", "healthy", "--logdir", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "gradwatch: stopped\n"


def test_a_terminal_without_bars(tmp_path: Path) -> None:
    code = f"from gradwatch.cli import main; main(['demo', '--steps', '1', '--logdir', {str(tmp_path)!r}])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    assert b"tensorboard --logdir" in found.stdout


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    """A healthy run and one that vanished and recovered."""
    logdir = tmp_path / "logs"
    write(logdir / "healthy", ("fc1", "fc2"), [[1.0, 2.0]] * 10)
    write(logdir / "exp" / "sick", ("fc1", "fc2"), [[1e-9, 2.0]] * 10, said={7: {"alerts": (VANISHING,)}})
    return logdir


def test_a_report_on_every_run(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("Run")] == ["Run       exp/sick", "Run       healthy"]
    assert shown.count("Verdict   healthy: 10 steps") == 2
    assert any(line.startswith("fc1    1.00e-09") for line in shown)


def test_a_report_on_one_run(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir / "healthy")]) == 0
    assert capsys.readouterr().out.startswith("Run       .\nVerdict   healthy: 10 steps\n")


def test_a_report_as_json(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir), "--json", "--compare", str(logdir)]) == 0
    found = json.loads(capsys.readouterr().out)
    sick, healthy = found["runs"]
    assert (sick["name"], sick["worst"], healthy["worst"]) == ("exp/sick", "error", "info")
    assert sick["report"]["alerts"][0]["rule"] == "vanishing"
    assert sick["layers"][0]["median"] == pytest.approx(1e-9)
    assert [pair["before"]["name"] for pair in found["comparisons"]] == ["exp/sick", "healthy"]
    assert {change["factor"] for pair in found["comparisons"] for change in pair["changes"]} == {1.0}


@pytest.mark.parametrize(
    ("run", "fail_on", "code"),
    [("healthy", "warning", 0), ("healthy", "error", 0), ("exp", "error", 3), ("exp", "warning", 3), (".", "error", 3)],
)
def test_a_build_can_fail_on_what_was_found(run: str, fail_on: str, code: int, logdir: Path) -> None:
    assert main(["report", str(logdir / run), "--fail-on", fail_on]) == code


def test_one_run_is_compared_with_another_of_any_name(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(logdir / "exp" / "sick"), "--compare", str(logdir / "healthy")]) == 0
    shown = capsys.readouterr().out
    assert "Compared  . -> ." in shown
    assert "fc1         1.00e+00  1.00e-09  1e-09x" in shown


def test_a_report_as_a_page(logdir: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(logdir), "--html", str(page), "--compare", str(logdir)]) == 0
    content = page.read_text(encoding="utf-8")
    assert content.startswith("<!doctype html>")
    for name in ("exp/sick", "healthy", f"{logdir}/healthy"):
        assert name in content


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{missing}"], "'{missing}' is no directory"),
        (["{file}"], "'{file}' is no directory"),
        (["{empty}"], "'{empty}' holds no gradient norms of gradwatch and no event files"),
        (["{foreign}"], "'{foreign}' holds no gradient norms of gradwatch; 1 run in it without"),
        (["{logdir}", "--compare", "{missing}"], "'{missing}' is no directory"),
        (
            ["{logdir}", "--compare", "{other}"],
            "--compare: no run has the same name in both: run; and exp/sick, healthy",
        ),
        (["{logdir}", "--html", "{missing}/page.html"], "--html: cannot write '{missing}/page.html': No such file or "),
    ],
    ids=str,
)
def test_what_cannot_be_reported_on_is_a_sentence(
    words: list[str], message: str, logdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: str(tmp_path / name) for name in ("missing", "file", "empty", "foreign", "other")}
    (tmp_path / "file").write_text("")
    for name in ("empty", "foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / "foreign" / "events.out.tfevents.1").write_text("no record at all")
    write(tmp_path / "other" / "run", ("fc1",), [[1.0]])
    places["logdir"] = str(logdir)
    assert main(["report", *(word.format(**places) for word in words)]) == 1
    assert capsys.readouterr().err.startswith(f"gradwatch: {message.format(**places)}")


def test_a_report_on_a_truncated_log_tells_it(logdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (logdir / "healthy").glob("*tfevents*")
    path.write_bytes(path.read_bytes()[:-5])
    assert main(["report", str(logdir / "healthy")]) == 0
    assert f"Note      {path.name}: the last " in capsys.readouterr().out


@pytest.mark.parametrize(("package", "code"), [("rich", 0), ("plotly", 0), ("torch", 0), ("tensorboard", 1)])
def test_a_report_needs_tensorboard_alone(package: str, code: int, logdir: Path) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None\nfrom gradwatch.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    found = subprocess.run([sys.executable, "-c", script, "report", str(logdir)], capture_output=True, text=True)
    assert found.returncode == code, found.stderr
    if code:
        assert found.stderr.startswith('gradwatch: the report needs: pip install "gradwatch[tensorboard]" (')
    else:
        assert found.stdout.startswith("Run       exp/sick")


def test_a_page_without_plotly_is_a_sentence(
    logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gradwatch.tensorboard_plugin.html.plotly_js", lambda: None)
    assert main(["report", str(logdir), "--html", str(tmp_path / "page.html")]) == 1
    assert (
        capsys.readouterr().err == 'gradwatch: --html: the charts need plotly: pip install "gradwatch[tensorboard]"\n'
    )


def test_a_reader_that_has_read_enough_ends_it_quietly(logdir: Path) -> None:
    code = f"from gradwatch.cli import main; import sys; sys.exit(main(['report', {str(logdir)!r}, '--json']))"
    found = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert found.stdout is not None
    found.stdout.close()
    assert found.stderr is not None
    assert found.stderr.read() == b""
    found.stderr.close()
    assert found.wait() == 1
