"""Labels: the statistics against hand-worked numbers, and every way to a label, from outcomes made up for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.detection.labels import (
    DEAD,
    DEGRADED,
    DROPPED,
    FAULTY,
    HEALTHY,
    OK,
    SEEDS,
    UNCLEAR,
    Gain,
    Gains,
    LabelFile,
    Runs,
    fingerprint,
    label,
    number_of_runs,
    outcome,
)
from benchmarks.detection.statistics import cohens_d, sign_flip_p, wilson
from benchmarks.detection.task import Program, Task
from tests.benchmarks_detection.tiny import RELU, SIGMOID, perceptron

# --- statistics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "of_32"),
    [
        ([1, 2, 3, 4, 5], 1),  # only the flips that change nothing
        ([-1, 2, 3, 4, 5], 2),  # sum 13: also reached by all positive
        ([1, 1, 1, 1, -1], 6),  # sum 3: one of five negative, or none
        ([-1, -2, -3, -4, -5], 32),
        ([0, 0, 0, 0, 0], 32),
        ([0.1, 0.2, 0.3, 0.0, 0.0], 4),  # the signs of the zeros do not matter
    ],
)
def test_sign_flips_are_counted_exactly(differences: Sequence[float], of_32: int) -> None:
    assert sign_flip_p(differences) == of_32 / 32


def test_sign_flips_agree_with_a_direct_count_over_random_differences() -> None:
    for differences in np.random.default_rng(0).normal(0.3, 1.0, (20, 7)):
        observed = math.fsum(differences)
        sums = [math.fsum(s * d for s, d in zip(signs, differences)) for signs in product((1, -1), repeat=7)]
        assert sign_flip_p(differences) == sum(total >= observed - 1e-12 for total in sums) / 128


def test_cohens_d_is_the_difference_in_pooled_standard_deviations() -> None:
    # variances 2.5 and 10, pooled sqrt(6.25)
    assert cohens_d([3, 4, 5, 6, 7], [-2, 0, 2, 4, 6]) == pytest.approx((5 - 2) / 2.5, rel=1e-12)
    assert cohens_d([1.0, 1.0], [0.5, 0.5]) == math.inf
    assert cohens_d([0.5, 0.5], [1.0, 1.0]) == -math.inf
    assert cohens_d([1.0, 1.0], [1.0, 1.0]) == 0.0


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # z^2 / (n + z^2)
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (29, 30, 0.8333, 0.9941),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_intervals_are_those_of_the_tables(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_the_ends_of_a_wilson_interval_solve_its_equation() -> None:
    """|p - share| = z sqrt(p (1 - p) / n) at both ends."""
    for end in wilson(7, 60):
        assert abs(end - 7 / 60) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / 60), rel=1e-9)


# --- from outcomes to labels ----------------------------------------------------------------------------------------

FAULT = Program(
    "f/x",
    "f",
    perceptron,
    settings={"lr": 9.0},
    twin={"lr": 1.0},
    remedies={"lr": {"lr": 1.0}, "norm": {"depth": 1}},
)
HEALTH = Program("healthy/x", "healthy", perceptron, settings={})


def gains(**metrics: Sequence[float] | float) -> Gains:
    """Metrics over a trivial predictor of 0.2: of the program itself (``run``), its twin, and its remedy ``norm``."""
    names = {"{}": "run", "{'lr': 1.0}": "twin", "{'depth': 1}": "norm"}

    def of(changes: Mapping[str, Any]) -> list[Gain]:
        given = metrics[names[str(dict(changes))]]
        return [Gain(m, 0.2) for m in (given if isinstance(given, Sequence) else [given] * len(SEEDS))]

    return of


GOOD = (0.98, 0.99, 1.0, 0.99, 0.98)
NAN = math.nan


@pytest.mark.parametrize(
    ("run", "twin", "norm", "expected", "came_of_it", "reason"),
    [
        (0.21, GOOD, 0.9, FAULTY, DEAD, ""),
        (NAN, GOOD, 0.2, FAULTY, DEAD, ""),
        (-1e30, GOOD, 0.2, FAULTY, DEAD, ""),  # far worse than trivial is no more than nothing gained
        ((0.5, 0.6, 0.5, 0.6, 0.5), GOOD, 0.9, FAULTY, DEGRADED, ""),
        ((NAN, 0.9, NAN, 0.9, 0.5), GOOD, 0.9, FAULTY, DEGRADED, ""),
        (GOOD, GOOD, 1.0, DROPPED, OK, "it does not fail: q = 0.98, not killed"),
        (0.92, GOOD, 1.0, DROPPED, UNCLEAR, "it does not fail: q = 0.90, killed"),
        ((1.0, 1.0, 0.2, 0.2, 1.0), GOOD, 1.0, DROPPED, UNCLEAR, "it does not fail: q = 0.60, not killed"),
        ((0.95, 0.2, 0.2, 0.2, 0.2), GOOD, 1.0, DROPPED, DEGRADED, "the recorded run does not fail: q = 0.94"),
        (0.21, (1.0, 0.4, 0.5, 0.4, 0.4), 0.2, DROPPED, DEAD, "its healthy twin is not reliable: q = 0.42"),
        (0.2, 0.2, 1.0, DROPPED, UNCLEAR, "its healthy twin learns nothing"),
        (0.2, NAN, 1.0, DROPPED, UNCLEAR, "its healthy twin learns nothing"),
    ],
)
def test_faulty_programs_are_labelled_by_what_came_of_them(
    run: Any, twin: Any, norm: Any, expected: str, came_of_it: str, reason: str
) -> None:
    found = label(FAULT, gains(run=run, twin=twin, norm=norm))
    assert (found.label, found.outcome, found.reason) == (expected, came_of_it, reason)


def test_a_degraded_program_is_measured_against_its_best_twin() -> None:
    found = label(FAULT, gains(run=(0.4, 0.5, 0.6, 0.5, 0.5), twin=GOOD, norm=(0.9, 0.8, 0.8, 0.8, 0.9)))
    assert found.reference == pytest.approx(0.8)
    assert found.q_of_seeds == pytest.approx([0.25, 0.375, 0.5, 0.375, 0.375])
    assert found.q == pytest.approx(0.375)
    assert (found.trivial, found.metrics, found.killed) == (0.2, (0.4, 0.5, 0.6, 0.5, 0.5), True)
    assert found.p == 1 / 32
    # in q: means 0.985 and 0.375, variances of the metrics 7e-5 and 5e-3, divided by 0.8 twice
    assert found.d == pytest.approx((0.985 - 0.375) / math.sqrt((7e-5 + 5e-3) / 2 / 0.64), rel=1e-9)
    assert found.remedies["norm"].q == pytest.approx((0.875 + 3 * 0.75 + 0.875) / 5)
    assert found.causes == ("lr", "norm")


def test_a_remedy_rescues_by_reaching_health_and_by_being_better() -> None:
    almost = label(FAULT, gains(run=0.21, twin=GOOD, norm=0.83))
    assert almost.causes == ("lr",)
    assert almost.remedies["norm"].q == pytest.approx(0.63 / 0.8)
    enough = label(FAULT, gains(run=0.21, twin=GOOD, norm=0.85))
    assert enough.causes == ("lr", "norm")
    without = replace(FAULT, remedies={"norm": {"depth": 1}})
    lost = label(without, gains(run=0.21, twin=GOOD, norm=0.83))
    assert (lost.label, lost.reason) == (DROPPED, "no remedy rescues it; the best is norm with q = 0.79")


def test_remedies_are_not_run_where_nothing_failed() -> None:
    found = label(FAULT, gains(run=GOOD, twin=GOOD))  # asking for "norm" would raise
    assert found.remedies == {}


@pytest.mark.parametrize(
    ("run", "expected", "reason"),
    [
        (GOOD, HEALTHY, ""),
        (0.2, DROPPED, "it learns nothing"),
        (NAN, DROPPED, "it learns nothing"),
        ((0.9, 0.9, 0.9, 0.2, 0.9), DROPPED, "it is not certain to beat the trivial predictor: p = 0.06, d = 2.5"),
        ((0.9, 0.9, 0.9, 0.7, 0.9), DROPPED, "a seed falls behind: q = 0.71"),
    ],
)
def test_healthy_programs_must_learn_with_every_seed(run: Any, expected: str, reason: str) -> None:
    found = label(HEALTH, gains(run=run))
    assert (found.label, found.reason) == (expected, reason)


def test_a_healthy_program_with_a_twin_must_keep_up_with_it() -> None:
    with_twin = replace(HEALTH, twin={"lr": 1.0})
    assert label(with_twin, gains(run=0.7, twin=GOOD)).reason == "a seed falls behind: q = 0.62"
    assert label(with_twin, gains(run=0.9, twin=GOOD)).label == HEALTHY


def test_the_limits_of_q_belong_to_the_better_side() -> None:
    assert [outcome(q, killed=True) for q in (0.0, 0.0999, 0.1, 0.7999, 0.8, 1.0)] == [
        *(DEAD, DEAD, DEGRADED, DEGRADED, UNCLEAR, UNCLEAR)
    ]
    assert [outcome(q, killed=False) for q in (0.0, 0.7999, 0.8, 1.1)] == [UNCLEAR, UNCLEAR, OK, OK]


# --- real runs, and the file ----------------------------------------------------------------------------------------


def test_a_deep_sigmoid_network_is_faulty_and_its_activation_is_the_cause() -> None:
    count: list[None] = []
    runs = Runs(ran=lambda: count.append(None))
    found = label(SIGMOID, runs.gains(SIGMOID))
    assert (found.label, found.outcome, found.causes) == (FAULTY, DEAD, ("activation",))
    assert found.q < 0.1
    assert found.remedies["activation"].q > 0.95
    assert found.p == 1 / 32
    assert len(count) == number_of_runs(SIGMOID) == 20
    healthy = label(RELU, runs.gains(RELU))
    assert (healthy.label, healthy.outcome) == (HEALTHY, OK)


def test_equal_runs_are_trained_once() -> None:
    built: list[tuple[int, float]] = []

    def counted(seed: int, *, lr: float, steps: int = 1) -> Task:
        built.append((seed, lr))
        return perceptron(seed, depth=1, lr=lr, steps=steps)

    program = Program("f/y", "f", counted, {"lr": 9.0}, twin={"lr": 1.0}, remedies={"lr": {"lr": 1.0}})
    runs = Runs()
    first = runs.gains(program)(program.twin)
    assert runs.gains(program)(program.remedies["lr"]) == first
    assert runs.gains(replace(program, name="f/z"))(program.twin) == first
    assert built == [(seed, 1.0) for seed in SEEDS]


def test_the_file_of_labels_holds_everything(tmp_path: Path) -> None:
    file = LabelFile(tmp_path / "labels.json", {"command": "label", "torch": "2"})
    file.labels["f/x"] = label(FAULT, gains(run=(0.25, NAN, 0.5, 0.5, 0.5), twin=0.7, norm=0.7))
    file.write()
    read = LabelFile.read(file.path)
    assert read.made_by == {"command": "label", "torch": "2"}
    ours, theirs = file.labels["f/x"], read.labels["f/x"]
    assert repr(theirs.metrics) == repr((0.25, NAN, 0.5, 0.5, 0.5))
    assert theirs.q_of_seeds == pytest.approx(ours.q_of_seeds, rel=1e-5)
    assert theirs.q == pytest.approx(0.38, rel=1e-5)  # gains 0.05, 0, and three times 0.3, of 0.5
    assert (theirs.label, theirs.causes, theirs.fingerprint) == (FAULTY, ("lr", "norm"), fingerprint(FAULT))
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_only_new_and_changed_programs_are_labelled_again(tmp_path: Path) -> None:
    file = LabelFile.read(tmp_path / "labels.json")
    assert file.missing([FAULT, HEALTH]) == [FAULT, HEALTH]
    file.labels["f/x"] = label(FAULT, gains(run=0.2, twin=GOOD, norm=1.0))
    assert file.missing([FAULT, HEALTH]) == [HEALTH]
    for changed in (
        replace(FAULT, settings={"lr": 8.0}),
        replace(FAULT, twin={"lr": 2.0}),
        replace(FAULT, remedies={"lr": {"lr": 1.0}}),
        replace(FAULT, family="healthy"),
        replace(FAULT, recipe=print),
    ):
        assert file.missing([changed]) == [changed]
    reworded = replace(FAULT, source="another paper", symptom="dead", layers="net.*")
    assert file.missing([reworded]) == []
