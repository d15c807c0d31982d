"""What every cause owes its user, whatever the history and whatever the alerts."""

from __future__ import annotations

import json

import pytest

from gradwatch import Alert, Severity, diagnosis, rules
from gradwatch.protocols import Cause
from gradwatch.records import to_plain
from tests.histories import CHANGING, HOSTILE, Run, history_of

RULES = [rule.name for rule in rules.default()]  # type: ignore[attr-defined]

every_cause = pytest.mark.parametrize("cause", diagnosis.default(), ids=lambda cause: type(cause).__name__)
every_run = pytest.mark.parametrize("run", [*HOSTILE.values(), *CHANGING.values()], ids=[*HOSTILE, *CHANGING])


@every_cause
@every_run
def test_any_history_with_any_alert(cause: Cause, run: Run) -> None:
    history = history_of(run)
    for rule in RULES:
        for layer in (None, "a layer that left", *history.layers[:1]):
            alert = Alert(len(run) - 1, rule, layer, Severity.ERROR, float("nan"), 0.0, "")
            found = cause.explain(history, None, [alert])
            if found is not None:
                assert 0.0 <= found.confidence <= 1.0
                assert set(found.layers) <= {*history.layers, "a layer that left"}
                assert found.evidence
                assert found.remedy
                assert json.loads(json.dumps(to_plain(found), allow_nan=False)) == to_plain(found)


@every_cause
@every_run
def test_without_an_alert_there_is_nothing_to_explain(cause: Cause, run: Run) -> None:
    assert cause.explain(history_of(run), None, []) is None


@every_cause
def test_an_alert_of_an_unknown_rule_explains_nothing(cause: Cause) -> None:
    alert = Alert(0, "mine", None, Severity.ERROR, 1.0, 0.0, "")
    for run in HOSTILE.values():
        assert cause.explain(history_of(run), None, [alert]) is None


def test_default_causes_meet_the_protocol() -> None:
    assert all(isinstance(cause, Cause) for cause in diagnosis.default())
