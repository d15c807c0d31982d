"""Every published rule just below and just above each of its limits, in runs written by hand."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from benchmarks.detection.detectors import ALL, Finding
from benchmarks.detection.detectors.epochs import Epochs
from benchmarks.detection.detectors.finding import first, onsets
from benchmarks.detection.detectors.tensors import dense_kernels, kernels
from benchmarks.detection.recorder import record
from benchmarks.detection.recording import Recording
from gradwatch.sampled import COLUMNS
from tests.benchmarks_detection.tiny import RELU, SIGMOID

NAN, INF = float("nan"), float("inf")
ALWAYS = slice(None)


def healthy(*, planned: int = 300, steps: int | None = None, kind: str = "ReLU", layer: str = "Linear") -> Recording:
    """Two layers with an activation in between, in a run that no detector minds; its epochs have ten steps each."""
    done = planned if steps is None else steps
    t = np.arange(done)[:, None]
    ends = np.arange(planned // 30, done + 1, planned // 30)
    drift = 1 + 1e-3 * t  # nothing stays the same
    per_parameter = drift * np.ones(4)
    recorded: dict[str, Any] = {
        "planned_steps": planned,
        "trivial": 0.1,
        "parameters": ("0.weight", "0.bias", "2.weight", "2.bias"),
        "modules": ("0", "0", "2", "2"),
        "kinds": (layer,) * 4,
        "numel": np.array([40, 4, 8, 2]),
        "grad_norm": 0.1 * np.ones((done, 4)),
        "grad_mean_abs": 0.01 * per_parameter,
        "grad_max_abs": 0.05 * per_parameter,
        "has_grad": np.ones((done, 4), bool),
        "param_norm": per_parameter,
        "param_mean_abs": 0.1 * per_parameter,
        "update_norm": 1e-3 * per_parameter,
        "loss": 2 * 0.99 ** np.arange(done),
        "lr": np.full(done, 0.01),
        "skipped": np.zeros(done, bool),
        "loss_scale": np.ones(done),
        "activations": ("1",),
        "activation_kinds": (kind,),
        "act_mean": 0.5 * drift,
        "act_mean_abs": 0.5 * drift,
        "act_std": drift,
        "act_p95": 2 * drift,
        "act_zero": 0.5 + 0 * drift,
        "input_min": -1.0,
        "input_max": 1.0,
        "metric_steps": ends,
        "metric": np.linspace(0.5, 0.95, 30)[: len(ends)],
        "sampled_sums": np.zeros((0, 4, COLUMNS)),
        "moved_squares": np.zeros((0, 4, 2)),
        "time_grad_norm": np.zeros((0, 0, 0)),
        "stacked": (),
        "towers": np.zeros(4, int),
        "recurrent": (),
    }
    shapes = {"grad": (done, 4), "act": (done, 1)}
    for field in fields(Recording):
        shape = shapes.get(field.name.split("_")[0], (0,))
        recorded.setdefault(field.name, 0.0 if field.name.startswith("input") else np.zeros(shape))
    return Recording(**recorded)


def edited(recording: Recording, *edits: tuple[str, Any, Any]) -> Recording:
    """With other values at some places of some arrays: (name, place, value)."""
    for name, place, value in edits:
        array = getattr(recording, name).copy()
        array[place] = value
        recording = replace(recording, **{name: array})
    return recording


def found(name: str, recording: Recording) -> dict[str, int]:
    """The symptoms that a detector names, and the step at which it first does."""
    steps: dict[str, int] = {}
    for finding in ALL[name](recording):
        assert finding.severity in ("error", "warning")
        assert 0 <= finding.step < len(recording)
        steps[finding.symptom] = min(finding.step, steps.get(finding.symptom, finding.step))
    return steps


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["ReLU", "Tanh", "GELU"])
def test_every_detector_is_silent_in_a_run_that_is_healthy_in_every_respect(name: str, kind: str) -> None:
    assert found(name, healthy(kind=kind)) == {}


@pytest.mark.parametrize("name", ALL)
def test_every_detector_takes_a_model_without_activation_modules_and_a_run_of_three_steps(name: str) -> None:
    run = healthy(steps=3)
    none = {f.name: getattr(run, f.name)[:, :0] for f in fields(run) if f.name.startswith("act_")}
    assert found(name, replace(run, activations=(), activation_kinds=(), **none)) == {}


@pytest.mark.parametrize("name", ALL)
def test_a_run_that_is_nan_for_good_is_noticed_when_it_is_looked_at(name: str) -> None:
    """NaN is neither below nor above a limit, and DEFault's callback has nothing but limits."""
    run = healthy(steps=70)
    edits = [(field, np.s_[50:], NAN) for field in ("grad_norm", "grad_mean_abs", "param_norm", "param_mean_abs")]
    run = edited(run, *edits, ("loss", np.s_[51:], NAN), ("grad_nonfinite", np.s_[50:], 1))
    otherwise = {
        "AutoTrainer": {"exploding": 69},
        "AutoTrainer, gradients only": {"exploding": 69},
        "DeepDiagnosis": {"nonfinite": 59},
        "UMLAUT": {"nonfinite": 59},
        "DEFault callback": {},
    }
    assert found(name, run) == otherwise.get(name, {"nonfinite": 50})


# --- gradwatch ------------------------------------------------------------------------------------------------------


def test_gradwatch_names_the_layer_and_the_symptom() -> None:
    nan = edited(healthy(), ("grad_norm", (50, 2), NAN))
    assert [f for f in ALL["gradwatch"](nan) if f.step == 50] == [Finding(50, "nonfinite", "error", "2")]
    tiny = edited(healthy(), ("grad_norm", (ALWAYS, [0, 1]), 1e-9))
    assert ("vanishing", "0") in {(f.symptom, f.layer) for f in ALL["gradwatch"](tiny)}


def test_real_runs_are_judged() -> None:
    """Ten sigmoid layers vanish for the limits that such networks were published with."""
    relu, sigmoid = (record(program.build(0))[0] for program in (RELU, SIGMOID))
    assert found("NaN only", relu) == found("NaN only", sigmoid) == {}
    assert "vanishing" in found("AutoTrainer, gradients only", sigmoid)
    assert "vanishing" not in found("AutoTrainer, gradients only", relu)


# --- the published limits -------------------------------------------------------------------------------------------

FIRST, BIAS, LAST = (ALWAYS, 0), (ALWAYS, 1), (ALWAYS, 2)
NO_LOSS_FALL = ("loss", ALWAYS, 1.0)
STUCK = ("metric", ALWAYS, 0.5)
POOR = ("metric", ALWAYS, np.linspace(0.3, 0.85, 30))  # 0.58 in the middle of the run
WAVES = np.tile([0.9, 0.87], 15)


def decay(ratio: float) -> np.ndarray:
    """A loss whose mean falls by ``ratio`` from each period of ten steps to the next, after one of the first step."""
    return np.concatenate([[1.0], np.repeat(ratio ** np.arange(1, 31), 10)])[:300]


CASES: list[tuple[str, list[tuple[str, Any, Any]], dict[str, int]]] = [
    ("NaN only", [("loss", 50, NAN)], {"nonfinite": 50}),
    ("NaN only", [("loss", 50, INF)], {"nonfinite": 50}),
    ("NaN only", [("grad_nonfinite", (50, 0), 1)], {"nonfinite": 50}),
    ("NaN only", [("grad_nonfinite", (50, 0), 1), ("skipped", 50, True)], {}),
    ("fixed thresholds", [("grad_norm", (20, 3), 0.99e-6)], {"vanishing": 20}),
    ("fixed thresholds", [("grad_norm", (20, 3), 1.01e-6)], {}),
    ("fixed thresholds", [("grad_norm", (20, 3), 0.0), ("has_grad", (20, 3), False)], {}),
    ("fixed thresholds", [("grad_norm", (20, 3), 1001.0)], {"exploding": 20}),
    ("fixed thresholds", [("grad_norm", (20, 3), 999.0)], {}),
    ("fixed thresholds", [("grad_norm", (20, 3), NAN), ("grad_nonfinite", (20, 3), 1)], {"nonfinite": 20}),
    # SageMaker: any tensor, biases too
    ("SageMaker Debugger", [("grad_mean_abs", (5, 1), 0.99e-7)], {"vanishing": 5}),
    ("SageMaker Debugger", [("grad_mean_abs", (5, 1), 1.01e-7)], {}),
    ("SageMaker Debugger", [("act_dead_units", (5, 0), 0.51)], {"dead": 5}),
    ("SageMaker Debugger", [("act_dead_units", (5, 0), 0.50)], {}),
    ("SageMaker Debugger", [("act_saturated_sagemaker", (5, 0), 0.51)], {"saturated": 5}),
    ("SageMaker Debugger", [("act_saturated_sagemaker", (5, 0), 0.50)], {}),
    ("SageMaker Debugger", [("param_norm", (5, 0), 1.0), ("update_norm", (5, 0), 10.1)], {"unstable": 5}),
    ("SageMaker Debugger", [("param_norm", (5, 0), 1.0), ("update_norm", (5, 0), 9.9)], {}),
    ("SageMaker Debugger", [("param_norm", (5, 0), 1.0), ("update_norm", (5, 0), 0.99e-8)], {"unstable": 5}),
    ("SageMaker Debugger", [("param_norm", (5, 0), 1.0), ("update_norm", (5, 0), 1.01e-8)], {}),
    ("SageMaker Debugger", [("act_mean", (5, 0), NAN)], {"nonfinite": 5}),
    ("SageMaker Debugger", [("act_mean", (5, 0), NAN), ("act_zero", (5, 0), NAN)], {}),  # did not run
    # DEFault: 40 of the 54 elements are those of the first kernel; 40 * 1.36e-4 / 54 = 1.007e-4
    ("DEFault callback", [("grad_mean_abs", ALWAYS, 0.0), ("grad_mean_abs", FIRST, 1.36e-4)], {}),
    ("DEFault callback", [("grad_mean_abs", ALWAYS, 0.0), ("grad_mean_abs", FIRST, 1.34e-4)], {"vanishing": 9}),
    ("DEFault callback", [("grad_max_abs", (9, 3), 70.1)], {"exploding": 9}),
    ("DEFault callback", [("grad_max_abs", (9, 3), 69.9)], {}),
    ("DEFault callback", [("grad_max_abs", (8, 3), 70.1)], {}),  # not at the end of an epoch
    ("DEFault callback", [("act_zero", (29, 0), 0.71)], {"dead": 29}),
    ("DEFault callback", [("act_zero", (29, 0), 0.70)], {}),
    # AutoTrainer: every third epoch, so at steps 9, 39, ...
    ("AutoTrainer, gradients only", [("grad_norm", FIRST, 0.99e-4)], {"vanishing": 9}),
    ("AutoTrainer, gradients only", [("grad_norm", FIRST, 1.01e-4), ("grad_norm", LAST, 1.0)], {}),
    ("AutoTrainer, gradients only", [("grad_norm", FIRST, 0.99e-4), ("grad_norm", LAST, 0.098)], {}),
    ("AutoTrainer, gradients only", [("grad_norm", (39, 0), 7.01)], {"exploding": 39}),
    ("AutoTrainer, gradients only", [("grad_norm", (39, 0), 6.99)], {}),
    ("AutoTrainer, gradients only", [("grad_norm", (29, 0), 7.01)], {}),
    ("AutoTrainer, gradients only", [("grad_zero_fraction", FIRST, 0.95)], {"dead": 9}),  # 38 of 54: 0.704
    ("AutoTrainer, gradients only", [("grad_zero_fraction", FIRST, 0.94)], {}),  # 37.6 of 54: 0.696
    ("AutoTrainer, gradients only", [("loss", ALWAYS, 1000.0)], {"exploding": 9}),
    ("AutoTrainer, gradients only", [("loss", ALWAYS, 999.0)], {}),
    ("AutoTrainer", [("loss", ALWAYS, 1000.0)], {"exploding": 9}),
    ("AutoTrainer", [("grad_norm", FIRST, 0.99e-4)], {}),  # the accuracy is good
    ("AutoTrainer", [("grad_norm", FIRST, 0.99e-4), POOR], {"vanishing": 159}),  # in the middle
    ("AutoTrainer", [("grad_norm", FIRST, 0.99e-4), STUCK], {"vanishing": 99}),  # stuck at 69, told at the next check
    ("AutoTrainer", [("grad_norm", (9, 0), 7.01), POOR], {"exploding": 159}),  # what was seen before counts
    ("AutoTrainer", [("grad_zero_fraction", FIRST, 0.95), ("grad_norm", FIRST, 7.01), POOR], {"dead": 159}),
    ("AutoTrainer", [POOR], {}),
    ("AutoTrainer", [STUCK], {"slow": 99}),
    ("AutoTrainer", [("metric", ALWAYS, 0.1 + 0.0099 * np.arange(30))], {"slow": 99}),
    ("AutoTrainer", [("metric", ALWAYS, 0.1 + 0.0101 * np.arange(30))], {}),
    ("AutoTrainer", [("metric", ALWAYS, WAVES)], {"unstable": 159}),
    ("AutoTrainer", [("metric", ALWAYS, np.tile([0.9, 0.871], 15))], {}),
    # three falls in 16 epochs are less than a fifth of them, four are more
    ("AutoTrainer", [("metric", np.s_[:8], WAVES[:8])], {}),
    ("AutoTrainer", [("metric", np.s_[:10], WAVES[:10])], {"unstable": 159}),
    ("AutoTrainer", [("act_mean_abs", ALWAYS, 10.0)], {"data": 159}),
    ("AutoTrainer", [("act_mean_abs", ALWAYS, 9.99)], {}),
    # DeepDiagnosis: at the end of each epoch; every fifth at steps 49, 99, ...
    ("DeepDiagnosis", [("grad_mean_abs", (9, 0), 0.99e-7)], {"vanishing": 9}),
    ("DeepDiagnosis", [("grad_mean_abs", (9, 0), 1.01e-7)], {}),
    ("DeepDiagnosis", [("grad_mean_abs", (9, 1), 0.99e-7)], {}),  # no bias
    ("DeepDiagnosis", [("grad_mean_abs", (9, 0), 0.0)], {"dead": 9}),
    ("DeepDiagnosis", [("act_mean", (9, 0), 0.0)], {"dead": 9}),
    ("DeepDiagnosis", [("act_mean", (9, 0), INF)], {"nonfinite": 9}),
    ("DeepDiagnosis", [("act_zero", (299, 0), 0.70)], {"dead": 299}),
    ("DeepDiagnosis", [("act_zero", (299, 0), 0.69)], {}),
    ("DeepDiagnosis", [("act_zero", (289, 0), 0.70)], {}),
    ("DeepDiagnosis", [("act_saturated", (49, 0), 0.51)], {"saturated": 49}),
    ("DeepDiagnosis", [("act_saturated", (49, 0), 0.50)], {}),
    ("DeepDiagnosis", [("act_saturated", (39, 0), 0.51)], {}),
    ("DeepDiagnosis", [("act_mean", ALWAYS, 0.5)], {"unchanged": 49}),
    ("DeepDiagnosis", [("param_mean_abs", FIRST, 0.3)], {"unchanged": 49}),
    ("DeepDiagnosis", [("param_mean_abs", BIAS, 0.3)], {}),
    ("DeepDiagnosis", [("param_mean_abs", (np.s_[:49], 0), 0.3)], {}),  # four epochs
    ("DeepDiagnosis", [("loss", 35, NAN)], {"nonfinite": 39}),
    ("DeepDiagnosis", [("loss", np.s_[:50], 1.0)], {"slow": 49}),
    ("DeepDiagnosis", [("loss", np.s_[:40], 1.0)], {}),
    ("DeepDiagnosis", [("metric", np.s_[:20], 0.5)], {"slow": 199}),
    ("DeepDiagnosis", [("metric", np.s_[:19], 0.5)], {}),
    ("DeepDiagnosis", [("metric", 0, 0.0)], {"slow": 9}),
    ("DeepDiagnosis", [("loss", 5, NAN), ("metric", 0, 0.0)], {"nonfinite": 9}),  # it stops at the first
    # DeepLocalize: at each step
    ("DeepLocalize", [("grad_mean_abs", (1, 0), 0.0)], {"dead": 1}),  # one of two
    ("DeepLocalize", [("grad_mean_abs", (2, 0), 0.0)], {}),  # one of three
    ("DeepLocalize", [("param_mean_abs", (0, 0), 0.0)], {"dead": 0}),
    ("DeepLocalize", [("act_mean", (np.s_[2:4], 0), 0.0)], {"dead": 3}),  # two of four
    ("DeepLocalize", [("act_mean", (7, 0), NAN)], {"nonfinite": 7}),
    ("DeepLocalize", [("act_mean", (np.s_[5:10], 0), 0.5)], {"unchanged": 9}),
    ("DeepLocalize", [("act_mean", (np.s_[6:10], 0), 0.5)], {}),
    ("DeepLocalize", [("param_mean_abs", (np.s_[5:10], 0), 0.3)], {"unchanged": 9}),
    ("DeepLocalize", [("loss", np.s_[5:10], 1.0)], {"slow": 9}),
    ("DeepLocalize", [("loss", np.s_[4:9], 1.0)], {}),  # not one block of five
    # TheDeepChecker: every tenth step from step 10 on, kernels only
    ("TheDeepChecker", [("grad_mean_abs", (20, 0), 0.99e-6)], {"vanishing": 20}),
    ("TheDeepChecker", [("grad_mean_abs", (20, 0), 1.01e-6)], {}),
    ("TheDeepChecker", [("grad_mean_abs", (21, 0), 0.99e-6)], {}),
    ("TheDeepChecker", [("grad_mean_abs", (0, 0), 0.99e-6)], {}),
    ("TheDeepChecker", [("grad_mean_abs", (20, 1), 0.99e-6)], {}),
    ("TheDeepChecker", [("grad_mean_abs", (np.s_[16:21], 0), 0.5 ** np.arange(5))], {"vanishing": 20}),
    ("TheDeepChecker", [("grad_mean_abs", (np.s_[16:21], 0), 0.51 ** np.arange(5))], {}),
    ("TheDeepChecker", [("grad_mean_abs", (np.s_[17:21], 0), 0.5 ** np.arange(4))], {}),
    ("TheDeepChecker", [("grad_mean_abs", (np.s_[16:21], 0), 2.0 ** np.arange(5))], {"exploding": 20}),
    ("TheDeepChecker", [("grad_mean_abs", (np.s_[16:21], 0), 1.99 ** np.arange(5))], {}),
    ("TheDeepChecker", [("grad_mean_abs", (20, 0), 1.01e6)], {"exploding": 20}),
    ("TheDeepChecker", [("grad_mean_abs", (20, 0), 0.99e6)], {}),
    ("TheDeepChecker", [("param_norm", FIRST, 1.0), ("update_norm", FIRST, 10**-0.99)], {"unstable": 10}),
    ("TheDeepChecker", [("param_norm", FIRST, 1.0), ("update_norm", FIRST, 10**-1.01)], {}),
    ("TheDeepChecker", [("param_norm", FIRST, 1.0), ("update_norm", FIRST, 10**-4.01)], {"slow": 10}),
    ("TheDeepChecker", [("param_norm", FIRST, 1.0), ("update_norm", FIRST, 10**-3.99)], {}),
    # the mean of five steps at 10^0 and five at 10^-2.02 is 10^-1.01
    ("TheDeepChecker", [("param_norm", FIRST, 1.0), ("update_norm", FIRST, np.tile([1, 10**-2.02], 150))], {}),
    ("TheDeepChecker", [("update_norm", FIRST, 0.0)], {"unchanged": 10}),
    ("TheDeepChecker", [("act_quiet_units", (20, 0), 0.51)], {"dead": 20}),
    ("TheDeepChecker", [("act_quiet_units", (20, 0), 0.50)], {}),
    ("TheDeepChecker", [("act_std", (20, 0), 4.49)], {"activations": 20}),  # 4.49^2 / 2^2 = 5.04
    ("TheDeepChecker", [("act_std", (20, 0), 4.48)], {}),  # 5.018
    ("TheDeepChecker", [("act_std", (20, 0), 0.223)], {"activations": 20}),  # 0.5^2 / 0.223^2 = 5.027
    ("TheDeepChecker", [("act_std", (20, 0), 0.224)], {}),  # 4.98
    ("TheDeepChecker", [NO_LOSS_FALL], {"slow": 40}),
    ("TheDeepChecker", [("loss", ALWAYS, decay(0.951))], {"slow": 40}),
    ("TheDeepChecker", [("loss", ALWAYS, decay(0.949))], {}),
    ("UMLAUT", [("lr", ALWAYS, 0.0101)], {"unstable": 9}),
    ("UMLAUT", [("lr", 299, 0.99e-7)], {"slow": 299}),
    ("UMLAUT", [("lr", 299, 1.01e-7)], {}),
    ("UMLAUT", [("loss", 35, NAN)], {"nonfinite": 39}),
]


@pytest.mark.parametrize(
    ("name", "edits", "expected"), CASES, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)]
)
def test_each_limit_is_where_it_was_published(
    name: str, edits: list[tuple[str, Any, Any]], expected: dict[str, int]
) -> None:
    assert found(name, edited(healthy(), *edits)) == expected


@pytest.mark.parametrize(
    ("kind", "field", "symptom"),
    [("Tanh", "act_saturated_units", "saturated"), ("GELU", "act_quiet_units", "dead")],
)
def test_thedeepchecker_asks_sigmoid_and_tanh_for_saturation_and_others_for_dead_units(
    kind: str, field: str, symptom: str
) -> None:
    both = ("act_saturated_units", (20, 0), 0.51), ("act_quiet_units", (20, 0), 0.51)
    assert found("TheDeepChecker", edited(healthy(kind=kind), *both)) == {symptom: 20}
    assert found("TheDeepChecker", edited(healthy(kind=kind), (field, (20, 0), 0.5))) == {}


@pytest.mark.parametrize(("low", "high", "expected"), [(-1.01, 1.0, {"data": 9}), (-1.0, 1.01, {"data": 9})])
def test_umlaut_wants_inputs_between_minus_one_and_one(low: float, high: float, expected: dict[str, int]) -> None:
    assert found("UMLAUT", replace(healthy(), input_min=low, input_max=high)) == expected


def test_umlaut_says_nothing_of_the_range_of_tokens() -> None:
    assert found("UMLAUT", replace(healthy(), input_min=NAN, input_max=NAN)) == {}


def test_only_dense_layers_are_judged_by_deepdiagnosis() -> None:
    tiny = ("grad_mean_abs", FIRST, 1e-9)
    assert found("DeepDiagnosis", edited(healthy(layer="Conv2d"), tiny)) == {}
    assert found("DeepDiagnosis", edited(healthy(layer="Linear"), tiny)) == {"vanishing": 9}


def test_a_warning_of_sagemaker_is_no_error() -> None:
    run = edited(healthy(), ("update_norm", (5, 0), 0.0), ("grad_mean_abs", (7, 2), 0.0))
    assert [(f.step, f.severity, f.layer) for f in ALL["SageMaker Debugger"](run)] == [
        (7, "error", "2.weight"),
        (5, "warning", "0.weight"),
    ]


# --- what the rules share -------------------------------------------------------------------------------------------


def test_a_run_is_thirty_epochs() -> None:
    epochs = Epochs.of(healthy())
    assert epochs.last.tolist() == list(range(9, 300, 10))
    assert (len(epochs), epochs.planned, epochs.is_cut_short) == (30, 30, False)
    assert epochs.loss[0] == pytest.approx(2 * (1 - 0.99**10) / (1 - 0.99) / 10, rel=1e-12)  # a geometric series
    assert epochs.metric[-1] == 0.95


def test_a_run_that_broke_down_ends_with_a_part_of_an_epoch() -> None:
    epochs = Epochs.of(healthy(steps=25))
    assert epochs.last.tolist() == [9, 19, 24]
    assert epochs.is_cut_short
    assert np.isnan(epochs.metric).tolist() == [False, False, True]
    assert Epochs.of(healthy(steps=20)).last.tolist() == [9, 19]


def test_a_run_that_broke_down_within_its_first_epoch_is_judged() -> None:
    run = edited(healthy(planned=900, steps=21), ("loss", np.s_[1:], NAN))
    for name in ("AutoTrainer", "AutoTrainer, gradients only"):
        assert found(name, run) == {"exploding": 20}
    assert found("DeepDiagnosis", run) == {"nonfinite": 20}


def test_what_goes_on_is_one_finding() -> None:
    bad = np.array([[False, True], [True, True], [True, False], [False, True]])
    findings = onsets(bad, np.array([10, 20, 30, 40]), ["a", "b"], "dead", "warning")
    assert [(f.step, f.layer) for f in findings] == [(10, "b"), (20, "a"), (40, "b")]
    assert {(f.symptom, f.severity) for f in findings} == {("dead", "warning")}


def test_the_first_finding_is_the_earliest_and_of_equals_the_one_given_first() -> None:
    later, one, other = Finding(5, "dead"), Finding(3, "slow"), Finding(3, "dead")
    assert first([later, one, other]) == [one]
    assert first([]) == []


def test_kernels_are_neither_biases_nor_of_a_normalisation() -> None:
    run = replace(
        healthy(),
        parameters=("0.weight", "0.bias", "1.weight", "rnn.bias_hh_l0"),
        kinds=("Linear", "Linear", "BatchNorm1d", "LSTM"),
    )
    assert kernels(run).tolist() == [True, False, False, False]
    mixed = replace(run, parameters=("0.weight", "c.weight", "rnn.weight_hh_l0", "scale"), kinds=("Linear", *"CRS"))
    assert kernels(mixed).tolist() == [True] * 4
    assert dense_kernels(mixed).tolist() == [True, False, False, False]
