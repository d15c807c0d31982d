from __future__ import annotations

import math

import pytest

from gradwatch import History
from gradwatch.diagnosis import Unregistered
from tests.diagnosis.profiles import alert


def test_the_number_of_weights_is_told() -> None:
    found = Unregistered().explain(History(), None, [alert("unregistered", "head", value=12480.0)])
    assert found is not None
    assert (found.cause, found.layers, found.change, found.confidence) == ("unregistered", ("head",), "loop", 0.95)
    assert found.evidence[0].startswith("12,480 weights get a gradient, are not among model.parameters()")
    assert "nn.ModuleList" in found.remedy


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_no_weights_are_no_cause(value: float) -> None:
    assert Unregistered().explain(History(), None, [alert("unregistered", value=value)]) is None
    assert Unregistered().explain(History(), None, [alert("untrained")]) is None
