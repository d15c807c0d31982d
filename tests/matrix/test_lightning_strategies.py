"""Lightning's strategies on two processes each, started by Lightning, against one process in float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradwatch import tags
from tests.matrix.one_process import (
    assert_close,
    assert_parameters,
    assert_same_on_all_ranks,
    assert_totals,
    by_layer,
    expected,
)
from tests.matrix.table import Group
from tests.matrix.workers.training import TRAININGS

cell = Group("Lightning, real processes on gloo")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "workers" / "lightning_script.py"
STRATEGIES = ("ddp", "ddp_spawn", "model_parallel")

each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The directory that the training script wrote to, by strategy; all run at the same time."""
    directories = {strategy: tmp_path_factory.mktemp(strategy) for strategy in STRATEGIES}
    started = [fit(strategy, directory) for strategy, directory in directories.items()]
    try:
        for process in started:
            process.wait(timeout=200)
        yield directories
    finally:
        for process in started:
            process.kill()
            process.wait()


def fit(strategy: str, directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), strategy, str(directory)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def results(directory: Path) -> list[dict[str, Any]]:
    """What the monitor of each rank knew in the end."""
    files = [directory / f"rank {rank}.json" for rank in range(2)]
    if not all(file.exists() for file in files):
        pytest.fail((directory / "log").read_text()[-3000:])
    return [json.loads(file.read_text()) for file in files]


@cell('strategy="ddp"', within=1e-5)
@cell('strategy="ddp_spawn"', within=1e-5)
@cell("ModelParallelStrategy with fully_shard", within=1e-5)
@each_strategy
def test_norms_are_those_of_one_process(fits: dict[str, Path], strategy: str) -> None:
    wanted = expected("net")
    by_rank = results(fits[strategy])
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [0, 1, 2]
    assert by_rank[0]["alerts"] == []
    norms = [{f"net.{layer}": norm for layer, norm in step.items()} for step in wanted.norms]
    assert_close(by_layer(by_rank[0]), norms, within=1e-5)
    assert_totals(by_rank[0], norms, within=1e-5)


@cell("clipping by GlobalNorm with each of these strategies: parameters after 3 steps", within=1e-6)
@each_strategy
def test_clipping_is_that_of_one_process(fits: dict[str, Path], strategy: str) -> None:
    parameters = {f"net.{name}": values for name, values in expected("net").parameters.items()}
    for result in results(fits[strategy]):
        assert_parameters(result, parameters)


@cell("rank 0 writes: each step once, in a file given to all ranks and in the Trainer's logger")
@each_strategy
def test_rank_0_writes(fits: dict[str, Path], strategy: str) -> None:
    directory, norms = fits[strategy], results(fits[strategy])[0]["totals"]
    lines = [json.loads(line) for line in (directory / "lines.jsonl").read_text().splitlines()]
    assert [line["stats"]["step"] for line in lines] == [0, 1, 2]
    assert [line["stats"]["total_norm"] for line in lines] == norms
    assert len(list(directory.glob("events*"))) == 1
    events = EventAccumulator(str(directory)).Reload().Scalars(tags.TOTAL_NORM)
    assert [event.step for event in events] == [0, 1, 2]
    clipped = TRAININGS["net"].max_norm  # the logger's callback comes after the one that clips
    np.testing.assert_allclose([event.value for event in events], clipped, rtol=1e-5)
