from __future__ import annotations

import re

import pytest

from gradwatch import Diagnosis, History
from gradwatch.clipping import GlobalNorm
from gradwatch.diagnosis import GrowingGradient
from tests.diagnosis.profiles import alert, begun, chain
from tests.histories import layers, stats


def explain(norms: list[float], rule: str = "exploding") -> Diagnosis | None:
    return GrowingGradient().explain(History.from_grad_norms(fc0=norms), None, [alert(rule, value=norms[-1])])


def test_a_gradient_that_has_outgrown_its_median() -> None:
    found = explain([2.0] * 30 + [5e3] * 5)
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == (
        "growing_gradient",
        "clipping",
        0.4,
        ("fc0",),
    )
    assert found.evidence == ("the gradient norm of fc0 is 5e+03, 2.5e+03 times the median total norm of 2",)
    limit = float(re.search(r"clip at ([^:]+):", found.remedy)[1])  # type: ignore[index]
    assert GlobalNorm(max_norm=limit).max_norm == 6.0


@pytest.mark.parametrize("norms", [[5e3] * 30, [1.0, 1e4, 1e8], [2.0] * 30 + [10.0]])
def test_what_has_not(norms: list[float]) -> None:
    assert explain(norms) is None


def test_another_symptom() -> None:
    assert explain([2.0] * 30 + [5e3] * 5, rule="vanishing") is None


def test_a_step_that_threw_the_weights_about_explains_more() -> None:
    history = begun(chain(1, "Relu", 0.5, 2.0))
    for step in range(30):
        history.append(stats(step, layers([2.0]), total_update=0.9 if step == 20 else 1e-3))
    found = GrowingGradient().explain(history, None, [alert("exploding", value=5e3)])
    assert found is not None
    assert found.confidence == 0.2


@pytest.mark.parametrize(("argument", "value"), [("factor", 1.0), ("throws", 0.0)])
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"GrowingGradient: {argument} must be above"):
        GrowingGradient(**{argument: value})
