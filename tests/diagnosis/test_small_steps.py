from __future__ import annotations

import pytest

from gradwatch import Alert, History, Severity
from gradwatch.diagnosis import SmallSteps
from tests.diagnosis.profiles import alert

HISTORY = History.from_grad_norms(fc0=[3.0, 4.0])


@pytest.mark.parametrize(("most", "factor"), [(9e-8, "10000"), (1e-6, "1000"), (1e-15, "1000000000000")])
def test_the_learning_rate_that_would_move_it(most: float, factor: str) -> None:
    found = SmallSteps().explain(HISTORY, None, [Alert(101, "stalled", "fc0", Severity.WARNING, most, 1e-6, "")])
    assert found is not None
    assert (found.remedy, found.change) == (f"multiply the learning rate by {factor}", "lr")
    assert found.evidence[0].startswith("with a total gradient norm of 4 no step so far has changed the weights by")


def test_another_symptom() -> None:
    assert SmallSteps().explain(HISTORY, None, [alert("vanishing")]) is None


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^SmallSteps: usual_update must be above 0"):
        SmallSteps(usual_update=0.0)
