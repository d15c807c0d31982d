from __future__ import annotations

from gradwatch import History
from gradwatch.diagnosis import NotZeroed
from tests.diagnosis.profiles import alert


def test_only_of_its_rule() -> None:
    history = History.from_grad_norms(fc0=[1.0, 2.0])
    found = NotZeroed().explain(history, None, [alert("not_zeroed")])
    assert found is not None
    assert (found.cause, found.change, found.layers) == ("not_zeroed", "loop", ("fc0",))
    assert "in 2 steps the total norm went from 1 to 2" in found.evidence[0]
    assert NotZeroed().explain(history, None, [alert("exploding")]) is None
