from __future__ import annotations

import pytest

from gradwatch import Alert, History, Severity
from gradwatch.diagnosis import LossMismatch
from gradwatch.diagnosis.loss_mismatch import KNOWN
from gradwatch.records import CHANGES, MISTAKES


def alert(mistake: float, **more: object) -> Alert:
    return Alert(4, "loss_mismatch", "fc", Severity.WARNING, mistake, 0.0, "", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_has_its_remedy(mistake: str) -> None:
    found = LossMismatch().explain(History(), None, [alert(MISTAKES.index(mistake))])
    assert found is not None
    what, remedy, change = KNOWN[mistake]
    assert (found.cause, found.layers, found.remedy, found.change) == ("loss_mismatch", ("fc",), remedy, change)
    assert change in CHANGES
    assert found.evidence[0].startswith(f"the gradient at the output of fc is that of {what}")


def test_other_alerts_are_none_of_its_business() -> None:
    assert LossMismatch().explain(History(), None, [Alert(4, "dead", "fc", Severity.ERROR, 0.0, 0.0, "")]) is None
    assert LossMismatch().explain(History(), None, [alert(0.0, follows="exploding")]) is None
