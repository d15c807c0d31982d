"""Each story ends as it is told, over several seeds: real training, seconds each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from gradwatch import Severity
from gradwatch.demo.data import Digits, digits
from gradwatch.demo.networks import Remember, remembering_gru
from gradwatch.demo.stage import Stage
from gradwatch.demo.stories import STORIES
from gradwatch.demo.stories.rnn import gradient_through_time
from gradwatch.demo.training import Run, one_thread

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> Digits:
    return digits()


def tell(story: str, data: Digits, logdir: Path, seed: int) -> dict[str, Run]:
    stage = Stage(logdir, seed=seed, digits=data, console=Console(file=io.StringIO()))
    return {run.name: run for run in STORIES[story](stage)}


def silent(run: Run) -> bool:
    return run.report.severity is Severity.INFO and not [a for a in run.report.alerts if a.severity > Severity.INFO]


@pytest.mark.parametrize("seed", range(3))
def test_sigmoids_vanish_from_the_first_layer_on(seed: int, data: Digits, tmp_path: Path) -> None:
    runs = tell("vanishing", data, tmp_path, seed)
    sigmoid, relu = runs["sigmoid"], runs["relu he"]
    assert sigmoid.report.verdict == "vanishing: fc1, fc2, fc3, ... (10 of 11 layers)"
    assert {a.rule for a in sigmoid.report.alerts} == {"vanishing"}
    assert [d.cause for d in sigmoid.report.diagnoses] == ["bounded_activation", "plain_depth"]
    assert sigmoid.report.diagnoses[0].confidence > 0.6
    assert sigmoid.train_accuracy < 0.15
    assert silent(relu)
    assert relu.train_accuracy > 0.98


@pytest.mark.parametrize("seed", range(2))
def test_large_weights_explode_and_both_ways_out_rescue(seed: int, data: Digits, tmp_path: Path) -> None:
    runs = tell("exploding", data, tmp_path, seed)
    assert {"exploding", "nonfinite"} <= {a.rule for a in runs["large weights"].report.alerts}
    assert "exploding" in runs["large weights"].report.verdict
    assert runs["large weights"].report.diagnoses[0].cause == "large_weights"
    assert runs["large weights"].train_accuracy < 0.15
    assert not np.isfinite(runs["large weights"].train_loss)
    for rescued in ("clipped", "he"):
        assert silent(runs[rescued])
        assert runs[rescued].train_accuracy > 0.9


def test_the_rnn_loses_the_encoder(data: Digits, tmp_path: Path) -> None:
    runs = tell("rnn", data, tmp_path, seed=4)  # where the lost gradient grows a hundredfold, and stays lost
    tanh, gru = runs["tanh rnn"], runs["gru open gate"]
    assert tanh.report.verdict == "vanishing: encoder (1 of 3 layers); vanishing_in_time: cell (1 of 3 layers)"
    assert [d.cause for d in tanh.report.diagnoses] == ["vanishing_in_time"]
    assert tanh.train_accuracy < 0.2
    assert silent(gru)
    assert gru.train_accuracy > 0.95


@pytest.mark.parametrize("seed", range(2))
def test_of_healthy_networks_nothing_is_said(seed: int, data: Digits, tmp_path: Path) -> None:
    for run in tell("healthy", data, tmp_path, seed).values():
        assert run.report.verdict.endswith("no alert"), run.report
        assert run.train_accuracy > 0.95


def test_the_same_seed_tells_the_same_story(data: Digits, tmp_path: Path) -> None:
    stage = Stage(tmp_path, steps=5, seed=1, digits=data, console=Console(file=io.StringIO()))
    first, second = STORIES["vanishing"](stage), STORIES["vanishing"](stage)
    assert [run.losses for run in first] == [run.losses for run in second]


def test_the_gradient_of_the_first_state_is_that_of_the_encoder_s_output(data: Digits) -> None:
    torch.manual_seed(0)
    model = Remember(torch.nn.RNNCell, time_steps=3)
    model.out.weight.data.zero_().add_(torch.randn_like(model.out.weight))
    torch.manual_seed(1)
    found = gradient_through_time(model, data.train_images[:4], data.train_labels[:4])
    # d loss / d encoder.bias is the sum over the batch of tanh'(z) * d loss / d state_0
    torch.manual_seed(1)
    state = torch.tanh(model.encoder(data.train_images[:4])).detach().requires_grad_()
    hidden = state
    for _ in range(3):
        hidden = model.cell(0.1 * torch.randn(4, 8), hidden)
    loss = torch.nn.functional.cross_entropy(model.out(hidden), data.train_labels[:4])
    (expected,) = torch.autograd.grad(loss, state)
    assert len(found) == 4
    assert found[0] == pytest.approx(float(expected.norm()), rel=1e-5)


def test_an_open_gate_passes_what_its_bias_says(data: Digits) -> None:
    torch.manual_seed(0)
    found = gradient_through_time(remembering_gru(20, bias=6.0), data.train_images[:64], data.train_labels[:64])
    factor = (found[0] / found[-1]) ** (1 / 20)
    assert factor == pytest.approx(1 / (1 + np.exp(-6.0)), abs=0.02)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
