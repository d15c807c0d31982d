from __future__ import annotations

from gradwatch import Alert, Diagnosis, History, Severity
from gradwatch.diagnosis import SameOutput
from tests.diagnosis.profiles import alert

SAME = "fc: what it is given is the same for every example, and so is the model's output"


def explain(message: str, layer: str | None = "fc", severity: Severity = Severity.WARNING) -> Diagnosis | None:
    found = Alert(100, "same_output", layer, severity, 0.0, 1e-6, message)
    return SameOutput().explain(History.from_grad_norms(fc=[1.0], out=[1.0]), None, [found])


def test_of_the_data_and_of_what_lies_between() -> None:
    found = explain(SAME)
    assert found is not None
    assert (found.cause, found.confidence, found.layers, found.change) == ("same_output", 0.9, ("fc",), "")
    assert found.remedy == "look at the data as fc is given them, and at what is done with them before"
    found = explain(f"{SAME}; what stem is given differs")
    assert found is not None
    assert found.evidence[0].endswith("and so is the model's output")
    assert "a mean over the batch" in found.remedy


def test_what_was_different_once_was_not_so_since_the_run_began() -> None:
    for severity, begins in ((Severity.WARNING, f"since the run began, of {SAME}"), (Severity.ERROR, f"of {SAME}")):
        found = explain(SAME, severity=severity)
        assert found is not None
        assert found.evidence == (begins,)


def test_a_layer_may_be_called_anything() -> None:
    for name in ("differs", "x" * 300):
        found = explain(SAME.replace("fc", name), layer=name)
        assert found is not None
        assert found.layers == (name,)
        assert found.remedy == f"look at the data as {name} is given them, and at what is done with them before"


def test_another_symptom() -> None:
    assert SameOutput().explain(History(), None, [alert("dead")]) is None
