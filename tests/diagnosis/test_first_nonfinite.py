from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gradwatch import Alert, Diagnosis, History, Severity
from gradwatch.diagnosis import FirstNonFinite
from tests.histories import INF, NAN


def explain(**norms: Any) -> Diagnosis | None:
    history = History.from_grad_norms(norms)
    alert = Alert(len(history) - 1, "nonfinite", None, Severity.ERROR, NAN, INF, "")
    return FirstNonFinite().explain(history, None, [alert])


def test_out_of_a_clear_sky_in_some_layers() -> None:
    found = explain(a=[3.0] * 20 + [NAN, NAN], b=[4.0] * 20 + [INF, NAN], c=[0.0] * 22)
    assert found is not None
    assert (found.cause, found.confidence, found.layers) == ("first_nonfinite", 0.5, ("a", "b"))
    assert found.evidence == (
        "at step 20 the gradient was not finite in 2 of 3 layers: b, a",
        "the step before, the total norm was 5, nothing unusual",
    )
    assert found.remedy.startswith("look at what follows b for a division by zero")
    assert "set_detect_anomaly(True) names the operation" in found.remedy


def test_in_every_layer_the_loss_is_to_blame() -> None:
    found = explain(a=[1.0] * 20 + [NAN], b=[1.0] * 20 + [NAN])
    assert found is not None
    assert found.remedy.startswith("the loss or the last operations made it")


def test_an_overflow_that_was_coming() -> None:
    found = explain(a=[0.6] * 20 + [600.0, INF], b=[0.8] * 20 + [800.0, 1e9])
    assert found is not None
    assert (found.confidence, found.layers) == (0.8, ("a",))
    assert found.evidence[1] == "the step before, the total norm was 1e+03, 1e+03 times its median"
    assert found.remedy == "the gradients grew first: clip them or lower the learning rate"


def test_an_overflow_within_three_steps() -> None:
    found = explain(a=[5e3, 2e8, 2e18, INF])
    assert found is not None
    assert found.remedy == "the gradients grew first: clip them or lower the learning rate"


def test_the_layers_nearest_to_the_output_are_shown() -> None:
    found = explain(**{f"fc{i}": [1.0, NAN] for i in range(5)})
    assert found is not None
    assert found.evidence[0].endswith("in 5 of 5 layers: fc4, fc3, fc2, ...")


def test_from_the_first_step_nothing_came_before() -> None:
    found = explain(a=[NAN, NAN])
    assert found is not None
    assert len(found.evidence) == 1
    assert "at step 0" in found.evidence[0]


def test_finite_gradients_explain_nothing() -> None:
    assert explain(a=[1.0] * 20) is None


def test_a_layer_without_a_gradient_is_not_blamed() -> None:
    found = explain(frozen=[None] * 3, a=[1.0, 1.0, NAN])
    assert found is not None
    assert found.layers == ("a",)


def test_inf_may_be_the_overflow_of_a_gradient_scaler() -> None:
    assert "scaler=" in explain(a=[1.0] * 5 + [INF], b=[1.0] * 5 + [INF]).remedy  # type: ignore[union-attr]
    assert "scaler=" not in explain(a=[1.0] * 5 + [NAN], b=[1.0] * 5 + [NAN]).remedy  # type: ignore[union-attr]


def test_a_skipped_step_is_not_the_first() -> None:
    history = History.from_grad_norms(a=[1.0, 1.0])
    for step, skipped in ((2, True), (3, False)):
        assert history.latest is not None
        history.append(replace(history.latest, step=step, grad_norm=np.array([INF]), skipped=skipped))
    alert = Alert(3, "nonfinite", None, Severity.ERROR, INF, INF, "")
    found = FirstNonFinite().explain(history, None, [alert])
    assert found is not None
    assert "at step 3" in found.evidence[0]
    assert "scaler=" not in found.remedy
