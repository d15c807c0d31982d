from __future__ import annotations

import pytest

import gradwatch as gw
from gradwatch.diagnosis import OutOfReach
from gradwatch.profile import BackwardProfile, Segment

LAST = Segment("fc", "weight", "Addmm", 1.0, 1.0)


@pytest.mark.parametrize(
    ("probe", "what"),
    [
        (BackwardProfile((Segment("act", "activation", "Relu", 1e-9, 1.0), LAST)), "Relu in act"),
        (BackwardProfile((LAST,)), "the activation"),
        (BackwardProfile(()), "the activation"),
        (None, "the activation"),
    ],
)
def test_the_activation_as_far_as_it_was_seen(probe: BackwardProfile | None, what: str) -> None:
    told = gw.Alert(9, "out_of_reach", "fc", gw.Severity.WARNING, 0.93, 0.6, "")
    found = OutOfReach().explain(gw.History(), probe, [told])
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("out_of_reach", ("fc",), "activation")
    assert found.remedy == f"leave {what} off the model's output, or scale the targets to what it can give"
    assert found.evidence[0].startswith("93% of the squared gradient")


@pytest.mark.parametrize("rule", ["flat_output", "dead"])
def test_other_alerts(rule: str) -> None:
    assert OutOfReach().explain(gw.History(), None, [gw.Alert(9, rule, "fc", gw.Severity.ERROR, 0.9, 0.6, "")]) is None
