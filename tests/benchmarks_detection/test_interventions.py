"""What a user is told of a program and what following it does: figures of made-up outcomes, and real runs of a few."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from benchmarks.detection import split
from benchmarks.detection.diagnosing import Told, diagnose
from benchmarks.detection.interventions import (
    Intervention,
    InterventionFile,
    intervene,
    section,
    summarise,
)
from benchmarks.detection.labels import (
    FAULTY,
    HEALTHY,
    RECORDED_SEED,
    Label,
    LabelFile,
    Remedy,
    Runs,
    fingerprint,
    label,
)
from benchmarks.detection.programs import ALL
from benchmarks.detection.stuck import Stuck, StuckFile, find
from benchmarks.detection.task import Program
from gradwatch import Alert, Diagnosis, Severity
from tests.benchmarks_detection.tiny import RELU, SIGMOID, perceptron

RESCUES, FAILS = Remedy(0.95, 0.03, True), Remedy(0.2, 0.5, False)


def labelled(kind: str, *causes: str) -> Label:
    remedies = dict.fromkeys(causes, RESCUES)
    return Label(kind, "", "dead", 0.0, (0.0,) * 5, (), 0.0, 1.0, 1.0, 0.0, False, remedies)


def said(change: str, layers: tuple[str, ...] = ()) -> tuple[Diagnosis, ...]:
    return (Diagnosis("some_cause", 0.9, layers, ("it is so",), "do this", change),)


def program(name: str) -> Program:
    return Program(name, name.split("/")[0], perceptron, {})


PROGRAMS = [program(name) for name in ("a/1", "a/2", "a/3", "a/4", "healthy/1", "healthy/2", "healthy/3")]
LABELS = {
    **{f"a/{i}": labelled(FAULTY, "lr", "norm") for i in (1, 2, 3, 4)},
    **{f"healthy/{i}": labelled(HEALTHY) for i in (1, 2, 3)},
}
FOUND = {
    "a/1": Intervention(("dead",), said("lr", ("hidden.0.act",)), RESCUES),
    "a/2": Intervention(("dead",), said("width", ("head",)), RESCUES),
    "a/3": Intervention(("dead",), said("norm"), FAILS),
    "a/4": Intervention(()),
    "healthy/1": Intervention(()),
    "healthy/2": Intervention((), said("lr")),
    "healthy/3": Intervention(("spike",), said("clipping")),
}
STUCK = {name: Stuck({}, {}, ("hidden.0.layer",), "") for name in ("a/1", "a/2")} | {"a/3": Stuck({}, {}, (), "")}
HALVES = {p.name: "test" if p.name in ("a/4", "healthy/3") else "dev" for p in PROGRAMS}


def test_the_figures() -> None:
    found = summarise(PROGRAMS, LABELS, FOUND, STUCK)
    shares = {name: (share.count, share.total) for name, share in vars(found).items()}
    assert shares == {"told": (3, 4), "named": (2, 4), "rescued": (2, 4), "first_layer": (1, 2), "made_up": (1, 2)}


def test_the_section_lists_each_half_and_what_is_missed() -> None:
    text = section(PROGRAMS, HALVES, LABELS, InterventionFile(found=FOUND), STUCK)
    assert "| dev half | 3 of 3, 100% (0.44-1.00) | 2 of 3, 67% (0.21-0.94) |" in text
    assert "| 1 of 2 |" in text
    assert "| dev | `a/2` | some cause: width | lr, norm | q = 0.95 |" in text
    assert "| dev | `a/3` | some cause: norm | lr, norm | q = 0.20 |" in text
    assert "| test | `a/4` | no alert | lr, norm | - |" in text
    assert "`a/1`" not in text


def test_a_layer_counts_by_itself_or_with_its_block() -> None:
    stuck = Stuck({}, {}, ("hidden.0.layer", "core"), "")
    assert stuck.is_hit_by(["hidden.0.layer", "head"])
    assert stuck.is_hit_by(["hidden.0.activation"])
    assert stuck.is_hit_by(["core"])
    assert not stuck.is_hit_by(["hidden.1.layer", "hidden.0.layer"])
    assert not stuck.is_hit_by(["head"])
    assert not stuck.is_hit_by([])


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    file = InterventionFile(tmp_path / "i.json", {"command": "x", "machine": "y"}, FOUND)
    file.write()
    assert InterventionFile.read(file.path) == file
    stuck = StuckFile(tmp_path / "s.json", {"command": "x"}, {"a/1": Stuck({"fc": 0.1}, {"fc": 0.9}, ("fc",), "m")})
    stuck.write()
    assert StuckFile.read(stuck.path) == stuck


def test_what_was_made_is_of_the_programs_as_they_are() -> None:
    marks = {p.name: fingerprint(p) for p in ALL}
    for made in (InterventionFile.read().found, StuckFile.read().found):
        assert made
        assert {name: found.fingerprint for name, found in made.items()} == {name: marks[name] for name in made}


def test_a_remedy_is_judged_as_the_labels_judge_theirs() -> None:
    made = label(SIGMOID, Runs().gains(SIGMOID))
    alert = Alert(7, "vanishing", "0", Severity.ERROR, 0.0, 0.0, "")
    told = Told(
        (alert,), (Diagnosis("x", 0.9, (), ("e",), "replace Sigmoid by ReLU with He initialisation", "activation"),)
    )
    found = intervene(SIGMOID, made, told)
    assert (found.names(made), found.rescues, found.alerts) == (True, True, ("vanishing",))
    assert found.applied is not None
    assert found.applied.q == pytest.approx(made.remedies["activation"].q, abs=0.1)
    nothing = intervene(SIGMOID, made, Told((alert,), ()))
    assert (nothing.names(made), nothing.rescues, nothing.applied) == (False, False, None)


@pytest.mark.slow
def test_the_layers_of_sigmoids_are_stuck_one_by_one() -> None:
    shallow = Program(
        "sigmoid/tiny", "sigmoid", perceptron, {"activation": "sigmoid"}, {"activation": "relu"}, layers="*"
    )
    found = find(shallow, label(shallow, Runs().gains(shallow)))
    assert found.layers[0] == "0"
    assert found.faulty["0"] < 0.1 < found.twin["0"]


# --- real runs ------------------------------------------------------------------------------------------------------

SUBSET = {
    "sigmoid/mlp-5-cancer": "bounded_activation",
    "tiny-init/cnn-4": "small_weights",
    "large-init/mlp-8": "large_weights",
    "high-lr/mlp-4-adam": "learning_rate",
    "unscaled-data/wine-raw": "unscaled_inputs",
    "half-precision/stuck-scaler": "loss_scale",
    "dead-relu/iris-narrow-10": "dead_units",
    "saturated/tanh-4": "saturation",
    "nonfinite/spread": "first_nonfinite",
    "rnn-vanishing/parity-30": "vanishing_in_time",
}
BY_NAME = {p.name: p for p in ALL}


@cache
def told(name: str) -> Told:
    return diagnose(BY_NAME[name], RECORDED_SEED)


@pytest.mark.parametrize("name", SUBSET)
def test_a_live_run_is_told_its_cause(name: str) -> None:
    assert split.read()[name] == split.DEV
    assert told(name).diagnoses[0].cause == SUBSET[name]
    assert told(name).diagnoses[0].change in LabelFile.read().labels[name].causes


@pytest.mark.parametrize("name", ["healthy-architectures/last-layer-zero", "healthy-partly-frozen/lora"])
def test_a_healthy_run_is_told_nothing(name: str) -> None:
    assert told(name) == Told((), ())


def test_nothing_is_said_of_the_healthy_twin() -> None:
    assert diagnose(RELU, 0) == Told((), ())
