from __future__ import annotations

from gradwatch import Alert, History, Severity
from gradwatch.diagnosis import Detached
from tests.diagnosis.profiles import alert


def test_a_part_and_the_whole() -> None:
    history = History.from_grad_norms(fc0=[None], fc1=[None], fc2=[1.0])
    of_a_part = Alert(19, "no_gradient", None, Severity.WARNING, 0.0, 0.0, "", layers=("fc0", "fc1"))
    found = Detached().explain(history, None, [of_a_part])
    assert found is not None
    assert (found.cause, found.layers) == ("detached", ("fc0", "fc1"))
    assert found.evidence == ("no gradient ever came to fc0 and fc1, and one came to the layers after",)
    of_all = Alert(19, "no_gradient", None, Severity.ERROR, 0.0, 0.0, "", layers=("fc0", "fc1", "fc2"))
    found = Detached().explain(history, None, [of_all])
    assert found is not None
    assert found.evidence == ("none of 3 layers had a gradient when the optimizer stepped",)


def test_another_symptom() -> None:
    assert Detached().explain(History(), None, [alert("dead")]) is None


def test_gradients_that_are_zeroed_before_the_step() -> None:
    """With set_to_none=False they are there, and zero, while the loss asks for something at the last layer's output."""
    history = History.from_grad_norms(fc0=[0.0] * 20, fc1=[0.0] * 20)
    dead = Alert(19, "dead", None, Severity.ERROR, 0.0, 0.0, "", layers=("fc0", "fc1"))
    assert Detached().explain(history, None, [dead]) is None
    history.progress.first = 0.1
    found = Detached().explain(history, None, [dead])
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("detached", ("fc0", "fc1"), "loop")
    assert found.remedy == "call zero_grad() before backward(), not between backward() and step()"
    history = History.from_grad_norms(fc0=[0.0] * 19 + [float("nan")], fc1=[0.0] * 20)
    history.progress.first = 0.1
    assert Detached().explain(history, None, [dead]) is None
