from __future__ import annotations

from gradwatch import History
from gradwatch.diagnosis import EvalMode
from tests.diagnosis.profiles import alert


def test_what_to_call() -> None:
    found = EvalMode().explain(History(), None, [alert("eval_mode", None)])
    assert found is not None
    assert (found.cause, found.layers, found.change, found.confidence) == ("eval_mode", (), "loop", 0.9)
    assert found.evidence[0].startswith("model.training was False at every look")
    assert EvalMode().explain(History(), None, [alert("dead")]) is None
