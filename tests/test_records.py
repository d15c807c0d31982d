from __future__ import annotations

import dataclasses
import json
import math
import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, ClipRecord, Diagnosis, Layer, Report, Severity, StepStats
from gradwatch.records import to_plain

ALERT = Alert(3, "vanishing", "fc0", Severity.ERROR, 1e-9, 1e-4, "fc0: gradient norm 1e-09 stayed below 0.0001")
WEAK = Diagnosis("no_signal", 0.5, ("fc0",), ("second sentence",), "look behind fc0")
STRONG = Diagnosis("shrinks_with_depth", 0.97, ("fc0", "fc1"), ("first sentence", "with 2 numbers"), "use ReLU")
STATS = StepStats(
    step=3,
    layers=("fc0", "fc1"),
    grad_norm=np.array([math.nan, math.inf]),
    has_grad=np.array([True, False]),
    total_norm=math.nan,
    nonfinite=np.array([7, 0]),
)
CLIP = ClipRecord("global_norm", norm_before=math.inf, norm_after=1.0, coefficient=0.0, threshold=1.0)
REPORT = Report("vanishing: fc0", Severity.ERROR, (ALERT,), (STRONG, WEAK), STATS, CLIP)
RECORDS = [ALERT, WEAK, STATS, CLIP, REPORT, Layer("fc0", "Linear", 20, ("fc0.weight", "fc0.bias"))]

by_type = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


def test_severities_are_in_order() -> None:
    assert Severity.INFO < Severity.WARNING < Severity.ERROR


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([3.0, None, 0.5], (0.5, 3.0)),
        ([0.0, 1.0], (0.0, 1.0)),
        ([math.inf, 1.0], (1.0, math.inf)),
        ([math.nan, 1.0], (math.nan, math.nan)),
        ([None, None], (math.inf, 0.0)),
        ([], (math.inf, 0.0)),
    ],
)
def test_the_range_of_norms_is_over_the_layers_with_a_gradient(
    norms: list[float | None], expected: tuple[float, float]
) -> None:
    given = np.array([0.0 if norm is None else norm for norm in norms])
    names = tuple(f"{i}" * 300 for i in range(len(norms)))
    stats = StepStats(0, names, given, np.array([norm is not None for norm in norms], bool), 0.0)
    np.testing.assert_equal(stats.norm_range, expected)


OPTIONAL = [f.name for f in fields(StepStats) if f.default is None]


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_step_is_plain_where_nothing_but_its_norms_is_known(name: str) -> None:
    """The layers' sizes and the precision are the same at each step, and no look is needed to know them."""
    plain = StepStats(0, ("fc",), np.ones(1), np.ones(1, bool), 1.0)
    assert plain.is_plain
    for value in (np.array([np.nan]), 0.0):
        assert replace(plain, **{name: value}).is_plain is (name in ("numel", "half"))


@by_type
def test_records_cannot_be_changed(record: Any) -> None:
    for field in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field.name, None)


@by_type
def test_records_survive_pickling(record: Any) -> None:
    assert to_plain(pickle.loads(pickle.dumps(record))) == to_plain(record)


@by_type
def test_records_are_strict_json(record: Any) -> None:
    plain = to_plain(record)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == [field.name for field in dataclasses.fields(record) if field.metadata.get("written", True)]


def test_a_report_as_a_dict() -> None:
    plain = REPORT.to_dict()
    assert plain["severity"] == "error"
    assert plain["alerts"] == [
        {
            "step": 3,
            "rule": "vanishing",
            "layer": "fc0",
            "severity": "error",
            "value": 1e-9,
            "threshold": 1e-4,
            "message": "fc0: gradient norm 1e-09 stayed below 0.0001",
            "follows": "",
            "layers": [],
        }
    ]
    assert plain["diagnoses"][0]["layers"] == ["fc0", "fc1"]
    assert plain["stats"]["grad_norm"] == ["nan", "inf"]
    assert plain["stats"]["has_grad"] == [True, False]
    assert plain["stats"]["nonfinite"] == [7, 0]
    assert plain["stats"]["histogram"] is None
    assert plain["clip"]["norm_before"] == "inf"


def test_a_report_in_words() -> None:
    assert str(REPORT).splitlines() == [
        "Verdict   vanishing: fc0",
        "Why       shrinks with depth (confidence 97%)",
        "          no signal (confidence 50%)",
        "Evidence  first sentence",
        "          with 2 numbers",
        "          second sentence",
        "Next      use ReLU",
        "          look behind fc0",
    ]


def test_a_healthy_report_is_one_line() -> None:
    assert str(Report("healthy: 3 steps, 2 layers, no alert", Severity.INFO)) == (
        "Verdict   healthy: 3 steps, 2 layers, no alert"
    )


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (-math.inf, "-inf"),
        (np.float64("nan"), "nan"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1.0, math.inf]]), [[1.0, "inf"]]),
        (np.array([], dtype=bool), []),
        (Severity.WARNING, "warning"),
        ({1: (Severity.INFO, None)}, {"1": ["info", None]}),
        (True, True),
        ("text", "text"),
    ],
)
def test_plain_values(value: object, plain: object) -> None:
    found = to_plain(value)
    assert found == plain
    assert type(found) is type(plain)
