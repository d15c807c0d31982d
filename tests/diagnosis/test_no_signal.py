from __future__ import annotations

from gradwatch import Alert, Diagnosis, History, Severity
from gradwatch.diagnosis import NoSignal

ALERT = Alert(9, "dead", "a", Severity.WARNING, 0.0, 0.0, "")


def explain(**last: float | None) -> Diagnosis | None:
    return NoSignal().explain(
        History.from_grad_norms({name: [1.0, norm] for name, norm in last.items()}), None, [ALERT]
    )


def test_the_layers_that_receive_nothing_and_the_last_of_them() -> None:
    found = explain(a=0.0, b=0.0, frozen=None, c=1.0)
    assert found is not None
    assert (found.cause, found.confidence, found.layers) == ("no_signal", 0.5, ("a", "b"))
    assert found.evidence == ("2 of 4 layers receive a gradient of exactly zero, the last of them is b",)
    assert found.remedy.startswith("look behind b: ReLU units")


def test_a_signal_that_is_back_needs_no_explanation() -> None:
    assert explain(a=1e-30, frozen=None) is None
