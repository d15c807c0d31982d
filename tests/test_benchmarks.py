"""The benchmarks measure what they say. Each runs on a tiny model; its numbers are checked for meaning, not size."""

from __future__ import annotations

import copy
import json
import math
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from benchmarks import __main__ as run
from benchmarks import (
    clips,
    cost,
    event_bytes,
    growth,
    histograms,
    in_backward,
    in_trainer,
    memory,
    monitors,
    peers,
    tab,
    table,
    timing,
    training,
)
from benchmarks.goals import Goal, goals
from benchmarks.workloads import ALL, Workload
from gradwatch import tags
from gradwatch.stats import Measured
from gradwatch.tensorboard_plugin.tables import read

pytestmark = pytest.mark.filterwarnings("ignore")  # the benchmarks run the peers, which warn as they like


@pytest.fixture
def workload() -> Workload:
    """Four parameters with gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = Workload("W1", "tiny", model, optimizer, lambda: model(x).square().sum())
    found.backward()
    return found


def norms_of(workload: Workload) -> list[float]:
    """In float64, smallest first."""
    return sorted(float(np.linalg.norm(p.grad.double().numpy())) for p in workload.parameters)


def written(directory: Path) -> EventAccumulator:
    """The newest run in ``directory``."""
    files = sorted(directory.rglob("*tfevents*"), key=lambda file: file.stat().st_mtime_ns)
    return EventAccumulator(str(files[-1].parent), {"scalars": 0, "histograms": 0}).Reload()


def written_norms(events: EventAccumulator, workload: Workload) -> list[float]:
    """The last value of each series of a parameter, smallest first."""
    names = [name for name, _ in workload.model.named_parameters()]
    tags = [tag for tag in events.Tags()["scalars"] if tag.replace("/", ".").endswith(tuple(names))]
    return sorted(events.Scalars(tag)[-1].value for tag in tags)


def burn(ms: float) -> None:
    """So much CPU time."""
    start = time.process_time()
    while time.process_time() - start < ms / 1e3:
        pass


class Burning(monitors.Monitor):
    """A monitor that costs 2 ms per step."""

    def step(self) -> None:
        burn(2)


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [("W1", 24, 789_504), ("W2", 161, 25_557_032), ("W3", 148, 124_439_808), ("W4", 1000, 136_000)],
)
def test_workloads_have_the_shapes_of_their_models(name: str, tensors: int, elements: int) -> None:
    with torch.device("meta"):
        found = ALL[name]()
    assert (found.name, len(found.parameters)) == (name, tensors)
    assert sum(p.numel() for p in found.parameters) == elements


# --- timing -----------------------------------------------------------------------------------------------------------


def test_cpu_time_leaves_waiting_out_and_takes_threads_in() -> None:
    assert timing.cpu_ms(lambda: time.sleep(0.05)) < 25
    assert 10 <= timing.cpu_ms(lambda: burn(10), times=2) < 20  # per call

    def in_a_thread() -> None:
        thread = threading.Thread(target=burn, args=(20,))
        thread.start()
        thread.join()

    assert timing.cpu_ms(in_a_thread) >= 20


def test_the_median_leaves_out_the_round_that_warms_up() -> None:
    values = {"a": iter([100.0, 1.0, 3.0, 2.0]), "b": iter([0.0, 7.0, 7.0, 9.0])}
    methods = {title: lambda found=found: next(found) for title, found in values.items()}
    assert timing.medians(methods, 3, "") == {"a": 2.0, "b": 7.0}


@pytest.mark.slow
def test_a_child_is_another_process_with_one_thread() -> None:
    pid, threads = timing.in_child(eval, "__import__('os').getpid(), __import__('torch').get_num_threads()")
    assert pid != os.getpid()
    assert threads == 1


# --- monitors ---------------------------------------------------------------------------------------------------------

WRITES_NORMS: dict[str, Callable[..., monitors.Monitor]] = {
    "gradwatch": monitors.Gradwatch,
    "by hand": peers.HandWritten,
    "Lightning's function": peers.LightningFunction,
    "Lightning's log_dict": in_trainer.LogDict,
    "gradwatch's callback": in_trainer.Callback,
    "Ignite": peers.Ignite,
}


def skip_without_its_package(kind: object) -> None:
    for package in {peers.Ignite: ["ignite"], in_backward.WandbWatch: ["wandb", "psutil"]}.get(kind, ()):
        pytest.importorskip(package)


@pytest.mark.parametrize("kind", WRITES_NORMS.values(), ids=WRITES_NORMS)
def test_it_writes_the_norm_of_every_parameter(kind: Any, workload: Workload, tmp_path: Path) -> None:
    skip_without_its_package(kind)
    before = copy.deepcopy([p.grad for p in workload.parameters])
    monitor = kind(workload, tmp_path)
    assert monitor.cost(2) > 0
    monitor.close()
    events = [file for file in tmp_path.rglob("*tfevents*") if file.stat().st_size > 200]
    assert len(events) == 1, "with it, and not without"
    norms = written_norms(written(events[0].parent), workload)
    np.testing.assert_allclose(norms, norms_of(workload), rtol=1e-5)
    for p, gradient in zip(workload.parameters, before):
        torch.testing.assert_close(p.grad, gradient, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [monitors.Gradwatch, peers.HandWritten, peers.Ignite])
def test_it_writes_a_histogram_of_every_parameter_when_due(kind: Any, workload: Workload, tmp_path: Path) -> None:
    skip_without_its_package(kind)
    monitor = kind(workload, tmp_path, histogram_every=3)
    monitor.run(6)
    monitor.close()
    events = written(tmp_path)
    tags = events.Tags()["histograms"]
    assert [len(events.Histograms(tag)) for tag in tags] == [2] * len(workload.parameters)


@pytest.mark.slow
def test_wandb_watches_every_parameter_once_in_ten_steps(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_its_package(in_backward.WandbWatch)
    gradients = [p.grad for p in workload.parameters]
    monitor = in_backward.WandbWatch(workload, tmp_path, histogram_every=10)
    logged: list[str] = []
    log = monitor.wandb_run._log  # what wandb.watch's hooks call
    monkeypatch.setattr(monitor.wandb_run, "_log", lambda data, **rest: (logged.extend(data), log(data, **rest)))
    try:
        monitor.cost(10)
    finally:
        monkeypatch.undo()
        monitor.close()
    names = [f"gradients/{name}" for name, _ in workload.model.named_parameters()]
    assert sorted(key for key in logged if key != "loss") == sorted(names)
    assert all(p.grad is gradient for p, gradient in zip(workload.parameters, gradients))
    assert not any(p._backward_hooks for p in workload.parameters), "nothing is watched any more"
    assert monitor.writers, "what wandb-core takes is counted"


def test_a_difference_is_what_is_added(workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that costs 2 ms per step costs 2 ms per step, whatever the Trainer does."""

    class Adding(in_trainer.InTrainer):
        def callbacks(self, logger: Any) -> list[Any]:
            callback = in_trainer.pl.Callback()
            callback.on_before_optimizer_step = lambda *given: burn(2)  # type: ignore[method-assign]
            return [callback]

    assert 1 < np.median([Adding(workload, tmp_path).cost(20) for _ in range(3)]) < 4


@pytest.mark.parametrize(
    ("kind", "clipped"),
    [
        (clips.ClipOnly, False),
        (clips.GradwatchClip, False),
        (clips.ClipAlways, True),
        (clips.GradwatchClipAlways, True),
    ],
)
def test_it_clips_or_not(kind: Any, clipped: bool, workload: Workload, tmp_path: Path) -> None:
    before = np.linalg.norm(norms_of(workload))
    for steps in (1, 3, 10):
        monitor = kind(workload, tmp_path)
        monitor.cost(steps)
        after = np.linalg.norm(norms_of(workload))
        assert after == pytest.approx(before * clips.FALL**steps if clipped else before, rel=1e-4)
        monitor.close()
        workload.backward()


# --- figures ----------------------------------------------------------------------------------------------------------


def test_costs_have_every_method_and_their_meaning(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {cost.GRADWATCH: cost.METHODS[cost.GRADWATCH], "burning": cost.Method(Burning, 3)}
    monkeypatch.setattr(cost, "METHODS", methods)
    found = cost.measure(workload, 2, tmp_path)
    assert list(found["ms"]) == [cost.STEP, cost.READ, cost.NORMS, *methods]
    assert 2 <= found["ms"]["burning"] < 4
    assert all(ms > 0 for ms in found["ms"].values())
    assert found["tensors"] == 4
    assert found["megabytes"] == pytest.approx(4 * (4 * 8 + 8 + 8 * 2 + 2) / 1e6)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*tfevents*"))
    assert found["event_bytes_per_step"] == size / (3 * cost.BLOCK)
    assert 0 <= found["norm_error"] < 1e-6


def test_a_block_holds_a_step_with_histograms() -> None:
    assert all(method.block % (method.histogram_every or 1) == 0 for method in cost.METHODS.values())


def test_the_error_of_norms_is_relative_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = [torch.full((3,), 1e-3), torch.zeros(2), torch.full((5,), 1e3)]
    assert cost.norm_error(gradients) < 1e-7
    exact = cost.norms(gradients).norms
    off = Measured(exact * torch.tensor([1.0, 1.0, 1.01]), exact.norm())
    monkeypatch.setattr(cost, "norms", lambda gradients: off)
    assert cost.norm_error(gradients) == pytest.approx(0.01, rel=1e-4)


def test_a_monitor_as_dear_as_a_step_doubles_it(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "Gradwatch", Burning)
    step = Workload("W1", "", workload.model, workload.optimizer, lambda: (burn(2), workload.loss())[1])
    found = training.slowdown(step, 2, tmp_path)
    assert 1.5 < found["together"] < 2.1
    assert found["one by one"] < found["together"]


def test_growth_is_measured_at_every_size(tmp_path: Path) -> None:
    tensors = growth.by_tensors([2, 5], 1, tmp_path)
    sizes = growth.by_size([0.04], 1, tmp_path)
    assert [row["tensors"] for row in tensors] == [2, 5]
    assert [row["megabytes"] for row in sizes] == [0.04]
    assert all(row[f"{kind}_ms"] > 0 for row in tensors + sizes for kind in ("read", "norms", "gradwatch"))
    assert growth.workload(growth.PIECES, round(0.04e6 / 4 / growth.PIECES)).megabytes == pytest.approx(0.04)


class Hungry(monitors.Monitor):
    """A monitor that needs 64 MB for a moment."""

    def step(self) -> None:
        np.ones(8_000_000)


@pytest.mark.skipif(not memory.LINUX, reason="the peak can be set back on Linux only")
def test_the_peak_counts_what_is_freed_again(workload: Workload, tmp_path: Path) -> None:
    idle = memory.peak_of(lambda: monitors.Monitor(workload, tmp_path), steps=2)
    hungry = memory.peak_of(lambda: Hungry(workload, tmp_path), steps=2)
    assert idle is not None
    assert hungry is not None
    assert idle < 10
    assert 60 < hungry < 80


def test_memory_is_looked_at_after_so_many_steps() -> None:
    in_use = memory._over_steps((2, 4), memory._in_use)
    assert [row["steps"] for row in in_use] == [2, 4]
    assert all(row["objects"] > 1000 for row in in_use)
    try:
        first, second = memory._over_steps((2, 4), memory._traced)
        kept = np.ones(1_000_000)
        assert memory._traced()["traced_mb"] > first["traced_mb"] + kept.nbytes / 1e6 / 2
        assert 0 < second["traced_mb"] < 10
    finally:
        tracemalloc.stop()


def test_quantiles_are_those_of_the_counts() -> None:
    np.testing.assert_allclose(histograms.quantiles(np.full(7, 3), np.linspace(0, 1, 8)), histograms.QUANTILES)
    edges = histograms.bit_edges()
    assert edges[127 << 3] == 1.0
    assert edges[(127 << 3) + 1] == 1.125, "eight bins per octave"
    assert edges[-1] == np.inf


def test_quantiles_from_bins_are_close_and_from_two_bins_are_not() -> None:
    found = histograms.quantile_errors(np.array([0.0, 1e-3, 1e9]), 20_000)
    assert 0 < found["quantile_error"] < 0.015
    assert found["quantile_error"] < found["written_quantile_error"] < 0.3
    assert found["add_histogram_quantile_error"] > 1


def test_a_histogram_is_measured_in_all_and_in_binning(tmp_path: Path) -> None:
    found = histograms.measure(50_000, 1, tmp_path)
    assert found["elements"] == 50_000
    for part in ("", "_binning"):
        assert math.isfinite(found[f"gradwatch{part}_ms"])  # in all it is a difference of two times
        assert found[f"add_histogram{part}_ms"] > 0


def test_event_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    found = event_bytes.measure(5, 20, tmp_path)
    assert found["mean"] * 20 == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 5 * 4 < found["step"] < found["mean"], "the first step also writes scalars, histograms and names"


# --- goals and tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        (Goal("", {"W2": 1.3, "W3": 1.4}, {"W2": 1.4, "W3": 1.4}), ("at most 1.40x", "W2 1.30x, W3 1.40x", "met")),
        (
            Goal("", {"W2": 1.3, "W3": 1.5}, {"W2": 1.4, "W3": 1.4}),
            ("at most 1.40x", "W2 1.30x, W3 1.50x", "missed: W3"),
        ),
        (Goal("", {"W3": 2.0}, {"W2": 1.0, "W3": 1.0}), ("at most 1.00x", "W3 2.00x", "missed")),
        (Goal("", {"W1": float("nan")}, {"W1": 1.0}), ("at most 1.00x", "W1 nanx", "missed")),
        (Goal("", {"": 6.0}, {"": 5.0}, "{:.0f}", at_least=True, remark="!"), ("at least 5", "6!", "met")),
        (Goal("", {"": 4.0}, {"": 5.0}, "{:.0f}", at_least=True), ("at least 5", "4", "missed")),
        (
            Goal("", {"W1": 0.9, "W2": 0.6}, {"W1": 1.0, "W2": 0.5}),
            ("at most 1.00x (W1), 0.50x (W2)", "W1 0.90x, W2 0.60x", "missed: W2"),
        ),
    ],
)
def test_a_goal_says_what_is_missed(goal: Goal, says: tuple[str, ...]) -> None:
    assert goal.cells[1:] == says


@pytest.fixture
def results() -> dict[str, Any]:
    """As of a run where every method took 2 ms, on steps of 100."""
    titles = [cost.READ, cost.NORMS, *cost.METHODS]
    ms = {cost.STEP: 100.0, **dict.fromkeys(titles, 2.0)}
    one = {"tensors": 10, "megabytes": 1.0, "norm_error": 1e-8, "event_bytes_per_step": 500.0, "ms": ms}
    grows = [{"steps": n, "resident_mb": mb, "objects": 10} for n, mb in ((1, 3.0), (10, 5.0), (100, 5.5))]
    return {
        "machine": "a machine",
        "workloads": {w: {"title": f"model {w}", **one} for w in ("W1", "W2", "W3", "W4")},
        "slowdown": {"W1": {"together": 1.2, "one by one": 1.3}, "W4": {"together": 1.1, "one by one": 1.2}},
        "peak_mb": {"W1": 1.0, "W2": None},
        "growth_by_tensors": [{"tensors": 10, "read_ms": 0.1, "norms_ms": 0.2, "gradwatch_ms": 0.3}],
        "histogram": {
            "elements": 2_400_000,
            "gradwatch_ms": 10.0,
            "add_histogram_ms": 60.0,
            "gradwatch_binning_ms": 10.0,
            "add_histogram_binning_ms": 60.0,
            "quantile_error": 0.01,
            "written_quantile_error": 0.05,
        },
        "event_bytes": {"layers": 300, "step": 1300, "mean": 2000.0},
        "memory_over_steps": {"in_use": grows, "traced": [{"steps": 1, "traced_mb": 1.0}]},
    }


def test_goals_are_read_off_the_results(results: dict[str, Any]) -> None:
    met = {goal.figure: goal.cells[3] for goal in goals(results)}
    assert met == {
        "norms against one streaming read": "met",
        "norms, relative error": "met",
        "norms, for each tiny tensor": "missed",  # 2 ms for 10
        "monitor + GlobalNorm against clip_grad_norm_, nothing to clip": "missed: W2, W3",
        "monitor + GlobalNorm against clip_grad_norm_, clips": "met",
        "share of a training step": "missed: W3",  # 2%
        "with histograms every 10 steps": "met",
        "training step with gradwatch against one without": "missed",
        "against Ignite, scalars + histograms": "missed",
        "against wandb.watch": "missed",
        "against log_dict(grad_norm), in a Trainer": "missed",
        "histogram of 2.4M elements, times as fast as add_histogram": "met",
        "histogram of 2.4M elements, times as fast in binning": "missed",
        "histogram of 2.4M elements, error of p5 to p95": "met",
        "bytes written per step for 300 layers": "met",
        "memory grown from 10 to 100 steps": "met",
        "objects grown from 10 to 100 steps": "met",
    }


def test_goals_of_what_was_not_measured_are_left_out(results: dict[str, Any]) -> None:
    assert goals({"workloads": {}}) == []
    only = {"workloads": {"W3": results["workloads"]["W3"]}}
    assert {w for goal in goals(only) for w in goal.measured} == {"W3"}


def test_every_figure_is_in_a_table(results: dict[str, Any]) -> None:
    found = list(table.tables(results))
    assert [len(one.rows) for one in found] == [1 + 2 + len(cost.METHODS), 4, 3, 2, 1, len(goals(results))]
    assert list(table.tables({"machine": "", "workloads": {}})) == []


def test_the_readme_gets_what_lies_between_its_marks(results: dict[str, Any], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.START}\nold\n{table.END}\nafter\n")
    table.write_readme(table.markdown(results), readme)
    text = readme.read_text()
    assert text.startswith(f"before\n{table.START}\n| {table.HEAD} | W1: 10 tensors, 1 MB |")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "| gradwatch | 2.00 (2.0%) | 2.00 (2.0%) | 2.00 (2.0%) | 2.00 (2.0%) |" in text
    assert "| share of a training step | at most 2.5% (W2), 1.6% (W3) | W2 2.0%, W3 2.0% | missed: W3 |" in text
    assert "a machine" in text
    assert "old" not in text
    assert table.README.read_text(encoding="utf-8").count(table.START) == 1


def test_a_part_can_be_measured_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(event_bytes, "STEPS", 10)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--parts", "bytes", "--json", str(tmp_path / "found.json")])
    threads = torch.get_num_threads()
    try:
        run.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"machine", "rounds", "workloads", "event_bytes"}
    assert found["event_bytes"]["layers"] == 300
    assert "bytes written per step for 300 layers" in capsys.readouterr().out


def test_the_log_of_the_tab_is_what_it_says(tmp_path: Path) -> None:
    found = tab.write(tmp_path / "run", layers=100, steps=400)
    assert found["bytes"] * 400 == sum(path.stat().st_size for path in (tmp_path / "run").iterdir())
    read_back = read(tmp_path / "run")
    assert read_back.norms.steps.tolist() == [*range(400)]
    assert (len(set(read_back.norms.layers)), len(read_back.alerts)) == (100, 200)
    assert read_back.sampled["update_ratio"].steps.tolist() == [0, 100, 200, 300]
    assert (read_back.norms.row(0) == tags.NO_GRADIENT).sum() == 2
    spike = read_back.alerts[100]
    place = read_back.norms.layers.index(spike.layer or "")
    assert read_back.norms.row(spike.step)[place] > 1e3 * read_back.norms.row(spike.step - 1)[place]
    assert 0 < tab.without_server(tmp_path / "run")["read_s"] < 30


@pytest.mark.slow
def test_the_tab_is_asked_on_both_data_servers(tmp_path: Path) -> None:
    found = tab.measure(20, 400, tmp_path)
    assert set(found) == {"file", "rust", "python"}
    assert all(seconds > 0 for one in found.values() for seconds in one.values())
    lines = tab.rows({(20, 400): found, (1, 1): {**found, "rust": {**found["rust"], "first_s": 9.0, "mb": 2.5}}})
    by_title = {line[0]: line[1:] for line in lines}
    assert by_title["fast loading: first picture after that, s (goal 3)"][1] == "9.00, missed"
    assert by_title["fast loading: largest answer, MB (goal 2)"][1] == "2.50, missed"
    assert not any("missed" in line[1] for line in lines)
