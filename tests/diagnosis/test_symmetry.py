from __future__ import annotations

from gradwatch import Alert, History, Severity
from gradwatch.diagnosis import Symmetry


def test_the_layers_are_named() -> None:
    told = [
        Alert(4, "symmetric", None, Severity.WARNING, 0.0, 0.0, "", layers=("fc0", "fc1", "fc2")),
        Alert(5, "vanishing", "fc3", Severity.ERROR, 0.0, 0.0, ""),
    ]
    found = Symmetry().explain(History(), None, told)
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("symmetry", ("fc0", "fc1", "fc2"), "init_scale")
    assert found.remedy == "draw the initial weights of fc0 ... fc2 at random, as torch.nn.init.kaiming_normal_ does"
    assert Symmetry().explain(History(), None, told[1:]) is None
