from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gradwatch
from gradwatch import demo
from gradwatch.cli import main

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
