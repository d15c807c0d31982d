from __future__ import annotations

from gradwatch import History
from gradwatch.diagnosis import Unread
from tests.diagnosis.profiles import alert


def test_the_two_ways_to_read_next_to_nothing() -> None:
    mixed, first = (Unread().explain(History(), None, [alert("unread", "lstm", value=n)]) for n in (64.0, 1.0))
    assert mixed is not None
    assert first is not None
    assert mixed.evidence[0].endswith("at 64 time steps, which are the examples")
    assert mixed.remedy.startswith("make lstm with batch_first=True where its input is [batch, time, features]")
    assert first.evidence[0].startswith("at each look the first time step alone got a gradient")
    assert first.remedy.startswith("use the output of lstm at the last time step, output[:, -1]")
    assert {(d.cause, d.layers, d.change) for d in (mixed, first)} == {("unread", ("lstm",), "loop")}


def test_other_alerts_are_none_of_its_business() -> None:
    assert Unread().explain(History(), None, [alert("vanishing_in_time")]) is None
