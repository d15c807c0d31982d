from __future__ import annotations

import pytest

from gradwatch import Diagnosis, History, Severity
from gradwatch.diagnosis import BadBatch
from tests.diagnosis.profiles import INF, alert


def explain(norms: list[float], *steps: int, rule: str = "spike") -> Diagnosis | None:
    history = History.from_grad_norms(fc0=norms)
    alerts = [alert(rule, step=step, value=norms[step], severity=Severity.WARNING) for step in steps]
    return BadBatch().explain(history, None, alerts)


def test_one_spike() -> None:
    found = explain([0.5] * 30 + [50.0] + [0.5] * 5, 30)
    assert found is not None
    assert (found.cause, found.change, found.layers, found.confidence) == ("bad_batch", "clipping", ("fc0",), 0.7)
    assert found.evidence == (
        "at step 30 the total gradient norm was 50, 100 times the median of 0.5, and normal again right after",
    )
    assert found.remedy == "clip at 1.5: 3 times this run's median norm; and look at the batch of step 30"


def test_several_spikes_are_less_likely_the_data_s_fault() -> None:
    found = explain([0.5] * 30 + [50.0] + [0.5] * 5 + [80.0] + [0.5] * 3, 30, 36)
    assert found is not None
    assert found.confidence == 0.3
    assert found.evidence[0].startswith("at step 36 the total gradient norm was 80, 160 times")
    assert found.evidence[0].endswith("the same happened at 1 other step")


def test_what_is_no_spike() -> None:
    assert explain([0.5] * 30 + [50.0], 30, rule="exploding") is None
    assert explain([0.5] * 30, 29) is None
    assert explain([INF] * 30, 29) is None
    assert BadBatch().explain(History(), None, [alert("spike")]) is None


def test_a_step_that_is_out_of_the_window() -> None:
    history = History.from_grad_norms(fc0=[0.5] * 10)
    found = BadBatch().explain(history, None, [alert("spike", step=900, value=50.0)])
    assert found is not None
    assert "at step 900 the total gradient norm was 50" in found.evidence[0]


def test_the_factor_is_above_one() -> None:
    with pytest.raises(ValueError, match="BadBatch: factor must be above 1"):
        BadBatch(factor=1.0)
