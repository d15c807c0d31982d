"""What users write against, and what importing must not import."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys

import pytest

import gradwatch as gw

PUBLIC = {
    "gradwatch": [
        "Alert",
        "BackwardProfile",
        "ClipRecord",
        "ClipSummary",
        "Diagnosis",
        "History",
        "Layer",
        "Monitor",
        "Report",
        "Segment",
        "Severity",
        "StepStats",
        "clipping",
        "diagnosis",
        "probe",
        "rules",
        "sinks",
        "watch",
    ],
    "gradwatch.clipping": [
        "AGC",
        "AutoClip",
        "Chain",
        "ClipPolicy",
        "GlobalNorm",
        "PerGroup",
        "PerLayer",
        "SkipNonFinite",
        "SkipSpike",
        "SpikeClip",
        "TooManySkipped",
        "Value",
        "ZClip",
    ],
    "gradwatch.diagnosis": [
        "BadBatch",
        "Bottleneck",
        "BoundedActivation",
        "Cause",
        "DeadUnits",
        "DepthProfile",
        "ExplodingInTime",
        "FirstNonFinite",
        "GrowingGradient",
        "LargeWeights",
        "LearningRate",
        "LossScale",
        "NormWeights",
        "PlainDepth",
        "RankCollapse",
        "ResidualBranches",
        "Saturation",
        "SmallWeights",
        "UnscaledInputs",
        "VanishingInTime",
        "default",
    ],
    "gradwatch.rules": [
        "Clipped",
        "Dead",
        "Exploding",
        "LayerRule",
        "NonFinite",
        "Rule",
        "Skipped",
        "Spike",
        "UpdateRatio",
        "Vanishing",
        "check",
        "fresh",
        "default",
    ],
    "gradwatch.sinks": ["Callback", "Console", "JSONL", "Memory", "Sink", "TensorBoard"],
}

FIELDS = {
    "Layer": "name kind numel parameters",
    "StepStats": "step layers grad_norm has_grad total_norm max_abs zero_fraction nonfinite param_norm update_ratio",
    "Alert": "step rule layer severity value threshold message",
    "ClipRecord": "policy norm_before norm_after coefficient threshold group clipped parts rate",
    "ClipSummary": "policy part steps rate share median_norm threshold message",
    "Diagnosis": "cause confidence layers evidence remedy",
    "Report": "verdict severity alerts diagnoses stats clip",
}

MONITOR = {
    "scaler": None,
    "optimizer": None,
    "rules": None,
    "clip": None,
    "sinks": None,
    "every_n_steps": 1,
    "histogram_every_n_steps": 100,
    "probe_every_n_steps": 0,
    "granularity": "layer",
    "include": None,
    "exclude": None,
    "diagnose": True,
    "strict": False,
}
MONITOR_MEMBERS = "step probe flush close layers report state_dict load_state_dict clip_grad_norm_ __enter__ __exit__"
HISTORY_MEMBERS = "steps layers grad_norm total_norm from_grad_norms append state_dict load_state_dict"


@pytest.mark.parametrize("module", PUBLIC)
def test_these_names_are_public(module: str) -> None:
    """Those of the package exactly; its parts may gain a rule, policy, cause or sink, but lose none."""
    found = importlib.import_module(module)
    assert set(PUBLIC[module]) <= set(found.__all__)
    assert module != "gradwatch" or sorted(found.__all__) == sorted(PUBLIC[module])
    assert len(set(found.__all__)) == len(found.__all__)
    for name in found.__all__:
        assert getattr(found, name) is not None
    with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute 'no_such_name'"):
        found.no_such_name  # noqa: B018


def test_every_name_is_listed_and_can_be_imported_by_star() -> None:
    assert set(dir(gw)) >= {*gw.__all__, "__version__"}
    names: dict[str, object] = {}
    exec("from gradwatch import *", names)
    assert set(gw.__all__) <= set(names)


@pytest.mark.parametrize("name", FIELDS)
def test_records_have_the_fields_of_the_contract(name: str) -> None:
    fields = [field.name for field in dataclasses.fields(getattr(gw, name))]
    assert fields[: len(FIELDS[name].split())] == FIELDS[name].split()


def test_severities() -> None:
    assert [severity.name for severity in gw.Severity] == ["INFO", "WARNING", "ERROR"]


def keyword_defaults(function: object, skip: int) -> dict[str, object]:
    parameters = list(inspect.signature(function).parameters.values())[skip:]  # type: ignore[arg-type]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
    return {p.name: p.default for p in parameters}


def test_the_monitor_takes_what_the_contract_says() -> None:
    assert keyword_defaults(gw.Monitor, skip=1) == MONITOR
    assert all(hasattr(gw.Monitor, name) for name in MONITOR_MEMBERS.split())
    assert inspect.signature(gw.Monitor.step).parameters["step"].default is None


def test_watch_takes_the_same() -> None:
    parameters = inspect.signature(gw.watch).parameters
    assert list(parameters)[:2] == ["model", "optimizer"]
    expected = {name: default for name, default in MONITOR.items() if name != "optimizer"}
    assert keyword_defaults(gw.watch, skip=2) == expected


def test_a_history_has_the_members_of_the_contract() -> None:
    assert all(hasattr(gw.History(), name) for name in [*HISTORY_MEMBERS.split(), "latest"])


def test_rules_have_their_plain_names() -> None:
    names = (
        "no_gradient not_zeroed nonfinite overflow underflow exploding update_ratio stalled saturated vanishing "
        "vanishing_in_time dead spike unstable skipped clipped flat_output out_of_reach loss_mismatch symmetric "
        "no_activation untrained unregistered unread unscaled_inputs eval_mode "
        "heavy_dropout same_output off_target shrinking"
    )
    assert {rule.name for rule in gw.rules.default()} == set(names.split())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "module",
    [
        "gradwatch",
        "gradwatch.tensorboard_plugin",
        "gradwatch.records",
        "gradwatch.history",
        "gradwatch.verdict",
        "gradwatch.rules",
        "gradwatch.diagnosis",
        "gradwatch.sinks",
    ],
)
def test_importing_pulls_in_neither_torch_nor_an_optional_package(module: str) -> None:
    heavy = {"torch", "lightning", "pytorch_lightning", "tensorboard", "rich", "sklearn"}
    script = f"import sys, {module}; dir({module}); print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
