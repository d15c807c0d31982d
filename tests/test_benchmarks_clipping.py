"""The benchmark of clip policies measures what it says. Runs are short; numbers are checked for meaning, not size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.clipping import results, runs, troubles
from benchmarks.clipping.methods import METHODS, Limits, make
from benchmarks.clipping.runs import EVERY, Run, calibrate, steps_lost, train
from benchmarks.clipping.tasks import TASKS

STEPS = 40
LIMITS = Limits(total=1.0, layer=0.5, element=0.1)

each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@each_task
def test_a_task_is_the_same_after_the_same_seed_and_learns(task):
    first, second = (train(task, "nothing", "no clipping", LIMITS, 3, STEPS) for _ in range(2))
    assert first == second
    assert train(task, "nothing", "no clipping", LIMITS, 4, STEPS).curve != first.curve
    assert len(first.curve) == STEPS // EVERY
    assert first.curve[-1] < 0.95 * first.curve[0]


@each_task
def test_limits_are_percentiles_of_what_was_measured(task):
    limits = calibrate(task, seed=1000, steps=STEPS)
    assert limits.element < limits.layer <= limits.total


@each_task
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_through_every_trouble(task, method):
    steps = 12
    for trouble in troubles.TROUBLES:
        run = train(task, trouble, method, LIMITS, 0, steps)
        assert 0 <= run.rate <= 1
        kept_out = "SkipNonFinite" in method or trouble != "NaN"
        assert math.isfinite(run.loss) == kept_out


def test_torchs_clip_and_ours_give_the_same_training():
    task = TASKS["rnn"]
    ours, theirs = (train(task, "spikes", m, LIMITS, 0, STEPS) for m in ("GlobalNorm", "clip_grad_norm_"))
    assert ours == theirs
    assert ours.rate > 0


class TestTroubles:
    def test_spikes_come_for_all_alike_after_the_first_steps(self):
        def scales(seed):
            generator = torch.Generator().manual_seed(seed)
            return [troubles.scale("spikes", step, 2000, generator) for step in range(2000)]

        assert scales(0) == scales(0) != scales(1)
        assert set(scales(0)) == {1.0, troubles.SPIKE}
        assert set(scales(0)[:30]) == {1.0}
        assert np.mean(np.array(scales(0)) > 1) == pytest.approx(troubles.SPIKES, abs=0.01)

    def test_three_steps_are_nan(self):
        found = [troubles.scale("NaN", step, 300, torch.Generator()) for step in range(300)]
        assert np.flatnonzero(np.isnan(found)).tolist() == [90, 150, 210]

    def test_nothing_is_nothing(self):
        assert {troubles.scale("nothing", step, 300, torch.Generator()) for step in range(300)} == {1.0}

    def test_noise_is_as_large_as_it_says(self):
        """The median of a Cauchy-distributed magnitude is 1."""
        model, generator = torch.nn.Linear(100, 10), torch.Generator().manual_seed(0)
        sizes = []
        for _ in range(400):
            for p in model.parameters():
                p.grad = torch.ones_like(p)
            troubles.disturb("heavy tails", model, generator)
            noise = torch.cat([(p.grad - 1).flatten() for p in model.parameters()])
            sizes.append(float(noise.norm()) / math.sqrt(1010))
        assert np.median(sizes) == pytest.approx(troubles.TAIL, rel=0.2)
        assert np.mean(np.array(sizes) > 2) == pytest.approx(1 / 31, abs=0.02)


@pytest.mark.parametrize(
    ("loss", "lost"), [(0.5, 0), (0.7, 0), (0.8, 10), (0.9, 20), (0.95, 20), (2.0, 20), (math.inf, 50)]
)
def test_steps_lost_are_counted_back_on_the_healthy_curve(loss, lost):
    healthy = Run(0.7, 0.0, [1.0, 0.9, 0.8, 0.7, 0.6])  # in threes 0.9, 0.8, 0.7
    assert steps_lost(Run(loss - 1e-9 if loss < 0.7 else loss + 1e-9, 0.0, []), healthy, steps=50) == lost


def test_the_best_of_the_healthy_curve_so_far_counts():
    healthy = Run(0.7, 0.0, [0.9, 0.6, 0.6, 0.9, 1.2, 0.6, 0.3])  # in threes 0.7, 0.7, 0.9, 0.9, 0.7
    assert steps_lost(Run(0.8, 0.0, []), healthy, steps=70) == 40
    assert steps_lost(healthy, healthy, steps=70) == 40


def test_a_network_that_is_not_finite_has_an_infinite_loss():
    model = TASKS["rnn"].build()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    assert runs.read(TASKS["rnn"], model) == math.inf


def test_the_tables(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "METHODS", ("no clipping", "SkipNonFinite"))
    monkeypatch.setattr(results, "TASKS", {"rnn": TASKS["rnn"]})
    found = results.measure(steps=12, seeds=2)
    text = results.markdown(found, "a machine")
    assert "| no clipping | " in text
    assert "**lost** in 2 of 2" in text
    assert "over 2 seeds; steps lost of 12" in text
    page = tmp_path / "page.md"
    page.write_text(f"before {results.START} old {results.END} after\n")
    results.write_page(text, page)
    assert page.read_text().startswith(f"before {results.START}\n**RNN")
    assert page.read_text().endswith(f"{results.END} after\n")


def test_no_clipping_changes_nothing():
    model = torch.nn.Linear(2, 1)
    model.weight.grad = torch.ones(1, 2)
    clipping = make("no clipping", model, LIMITS)
    clipping.step()
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    assert clipping.rate() == 0.0
