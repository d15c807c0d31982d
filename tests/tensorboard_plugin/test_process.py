"""TensorBoard as a user starts it, which finds the plugin by its entry point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch import tags
from tests.event_logs import layer_names, write

STEPS = tags.CHUNK_STEPS + 100


@contextmanager
def tensorboard(logdir: Path, *flags: str, code: str = "") -> Iterator[tuple[str, Path]]:
    """The address of a TensorBoard of its own, and what it has printed; ``code`` runs in it first."""
    output = logdir.parent / "output.txt"
    start = f"{code}\nimport sys; from tensorboard.main import run_main; sys.exit(run_main())"
    with output.open("w") as file:
        command = [sys.executable, "-c", start, "--logdir", str(logdir), "--port", "0", *flags]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        for _ in range(600):
            if "(Press CTRL+C to quit)" in output.read_text():
                break
            assert process.poll() is None, output.read_text()
            time.sleep(0.1)
        else:
            raise AssertionError(output.read_text())
        yield output.read_text().split(" at ")[-1].split(" (")[0].rstrip("/"), output
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.loads(response.read())


def runs(address: str, wanted: int) -> list[dict[str, Any]]:
    """The runs, once so many steps of the last of them are seen."""
    for _ in range(300):
        found: list[dict[str, Any]] = get(f"{address}/data/plugin/gradwatch/runs")["runs"]
        if found and found[-1]["last"] == wanted:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--load_fast=true", "--path_prefix=/a/b"), ("--load_fast=false",)], ids=str)
def test_tensorboard_finds_the_tab_and_keeps_every_step(flags: tuple[str, ...], tmp_path: Path) -> None:
    logdir = tmp_path / "logs"
    layers = layer_names(2)
    write(logdir / "exp" / "run", layers, np.ones((STEPS, 2)))
    with tensorboard(logdir, *flags) as (address, output):
        assert [run["name"] for run in runs(address, STEPS - 1)] == ["exp/run"]
        view = get(f"{address}/data/plugin/gradwatch/overview?run=exp%2Frun")
        assert (view["rows_read"], view["layers"]) == (STEPS, [*layers])
        listing = get(f"{address}/data/plugins_listing")
        assert listing["gradwatch"]["enabled"]
        assert listing["gradwatch"]["tab_name"] == "Gradients"
        with pytest.raises(urllib.error.HTTPError, match="400"):
            get(f"{address}/data/plugin/gradwatch/overview")
        assert "Traceback" not in output.read_text()


@pytest.mark.slow
def test_without_torch_and_plotly_tensorboard_starts_and_the_tab_answers(tmp_path: Path) -> None:
    logdir = tmp_path / "logs"
    write(logdir / "run", ("a",), [[1.0]])
    code = "import sys; sys.modules['torch'] = sys.modules['plotly'] = None"
    with tensorboard(logdir, "--load_fast=false", code=code) as (address, output):
        assert runs(address, 0)[0]["layers"] == 1
        assert get(f"{address}/data/plugin/gradwatch/runs")["plotly"] is False
        assert "Traceback" not in output.read_text()


@pytest.mark.slow
def test_a_plugin_that_cannot_be_imported_leaves_tensorboard_running(tmp_path: Path) -> None:
    logdir = tmp_path / "logs"
    write(logdir / "run", ("a",), [[1.0]])
    code = "import sys; sys.modules['gradwatch.tensorboard_plugin.views'] = None"
    with tensorboard(logdir, "--load_fast=false", code=code) as (address, output):
        assert "gradwatch" not in get(f"{address}/data/plugins_listing")
        assert "no Gradients tab" in output.read_text()
        assert "Traceback" not in output.read_text()
