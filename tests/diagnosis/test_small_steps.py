from __future__ import annotations

import numpy as np
import pytest

from gradwatch import Alert, History, Severity
from gradwatch.diagnosis import SmallSteps
from gradwatch.records import AFTER_CLIPPING, BEFORE_CLIPPING
from tests.diagnosis.profiles import alert
from tests.histories import history_of, layers, stats

HISTORY = History.from_grad_norms(fc0=[3.0, 4.0])


@pytest.mark.parametrize(("most", "factor"), [(9e-8, "100000"), (1e-6, "1000"), (1e-15, "1000000000000")])
def test_the_learning_rate_that_would_move_it(most: float, factor: str) -> None:
    found = SmallSteps().explain(HISTORY, None, [Alert(101, "stalled", "fc0", Severity.WARNING, most, 1e-6, "")])
    assert found is not None
    assert (found.remedy, found.change) == (f"multiply the learning rate by {factor}", "lr")
    assert found.evidence[0].startswith("with a total gradient norm of 4 no step so far has changed the weights by")


@pytest.mark.parametrize(
    ("other", "limit", "captured", "change"),
    [
        (4.0, 0.01, AFTER_CLIPPING, "clipping"),
        (4.0, 1.0, AFTER_CLIPPING, "lr"),  # which is a usual limit
        (3.0, 0.01, AFTER_CLIPPING, "lr"),
        (4.0, 0.01, BEFORE_CLIPPING, "lr"),
    ],
)
def test_a_total_norm_that_is_always_the_same(other: float, limit: float, captured: str, change: str) -> None:
    """Clipped, the layers' shares in it change; where nothing moves and the batch is the same, nothing does."""
    history = history_of([])
    for step in range(10):
        norms = [limit / 5 * n for n in ([3.0, 4.0] if step % 2 else [other, (25 - other**2) ** 0.5])]
        history.append(stats(step, layers(norms), captured=captured))
    found = SmallSteps().explain(history, None, [Alert(9, "stalled", "fc0", Severity.WARNING, 1e-7, 1e-6, "")])
    assert found is not None
    assert found.change == change


@pytest.mark.parametrize(("earlier", "ended"), [(1e-3, True), (3e-6, False), (float("nan"), False)])
def test_steps_that_have_come_to_their_end(earlier: float, ended: bool) -> None:
    history = history_of([stats(i, layers([4.0, 3.0]), total_update=earlier if i == 1 else 1e-6) for i in range(5)])
    found = SmallSteps().explain(history, None, [Alert(9, "stalled", "fc0", Severity.ERROR, 1e-6, 1e-5, "")])
    assert found is not None
    assert ("no step lately" in found.evidence[0]) == (earlier > 1e-6)  # else it was the largest of all
    assert found.remedy.startswith("let the schedule") == ended


def test_large_steps_after_the_alert_have_not_ended() -> None:
    moved = [1e-9] * 10 + [1e-2] * 10
    history = history_of([stats(i, layers([4.0, 3.0]), total_update=update) for i, update in enumerate(moved)])
    found = SmallSteps().explain(history, None, [Alert(8, "stalled", "fc0", Severity.ERROR, 1e-9, 1e-6, "")])
    assert found is not None
    assert "no step so far" in found.evidence[0]


@pytest.mark.parametrize("later", [0.0, 1e-3])
def test_layers_that_stay_while_others_move(later: float) -> None:
    """Whatever became of them after the alert, which tells by its limit that it was about them alone."""
    history = History()
    history.append(stats(0, layers([1.0, 1.0]), update_ratio=np.array([later, 1e-3]), total_update=1e-3))
    told = Alert(101, "stalled", "fc0", Severity.WARNING, 0.0, 0.0, "")
    found = SmallSteps().explain(history, None, [told, alert("stalled", "fc1", value=0.0)])
    assert found is not None
    assert (found.change, found.layers) == ("lr", ("fc0",))
    assert found.evidence == ("steps had changed the weights of fc0 by nothing, or next to it, and others as usual",)


def test_another_symptom() -> None:
    assert SmallSteps().explain(HISTORY, None, [alert("vanishing")]) is None


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^SmallSteps: usual_update must be above 0"):
        SmallSteps(usual_update=0.0)
