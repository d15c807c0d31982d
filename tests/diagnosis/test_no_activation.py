from __future__ import annotations

from gradwatch import Alert, History, Severity
from gradwatch.diagnosis import NoActivation


def test_every_layer_that_others_follow_gets_an_activation() -> None:
    alert = Alert(1, "no_activation", None, Severity.WARNING, 0.0, 0.0, "", layers=("fc0", "fc1", "fc2"))
    found = NoActivation().explain(History(), None, [alert])
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("no_activation", alert.layers, "activation")
    assert found.remedy == "put an activation, such as torch.nn.ReLU, behind fc0 ... fc2"
    (evidence,) = found.evidence
    assert evidence.startswith("from the first weights to the last every operation is linear")


def test_other_alerts_are_none_of_its_business() -> None:
    for rule, follows in (("dead", ""), ("no_activation", "exploding")):
        alert = Alert(1, rule, "fc", Severity.WARNING, 0.0, 0.0, "", follows=follows, layers=("fc", "out"))
        assert NoActivation().explain(History(), None, [alert]) is None
