from __future__ import annotations

from gradwatch import Alert, History, Severity
from gradwatch.diagnosis import Untrained


def test_the_layers_are_named() -> None:
    alert = Alert(12, "untrained", None, Severity.WARNING, 0.0, 0.0, "", layers=("fc0", "fc1"))
    found = Untrained().explain(History(), None, [alert])
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("untrained", ("fc0", "fc1"), "loop")
    assert found.evidence == (
        "fc0 and fc1 have a gradient at every step, are in no parameter group of the optimizer, and nothing has "
        "written to them",
    )


def test_other_alerts_are_none_of_its_business() -> None:
    assert Untrained().explain(History(), None, [Alert(4, "dead", "fc", Severity.ERROR, 0.0, 0.0, "")]) is None
