from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradwatch import Alert, Diagnosis, History, Severity
from gradwatch.diagnosis import FirstNonFinite
from gradwatch.profile import BackwardProfile, Segment
from gradwatch.profile import FirstNonFinite as Origin
from tests.histories import INF, NAN


def explain(**norms: Any) -> Diagnosis | None:
    history = History.from_grad_norms(norms)
    alert = Alert(len(history) - 1, "nonfinite", None, Severity.ERROR, NAN, INF, "")
    return FirstNonFinite().explain(history, None, [alert])


def test_out_of_a_clear_sky_in_some_layers() -> None:
    found = explain(a=[3.0] * 20 + [NAN, NAN], b=[4.0] * 20 + [INF, NAN], c=[0.0] * 22)
    assert found is not None
    assert (found.cause, found.confidence, found.layers) == ("first_nonfinite", 0.6, ("a", "b"))
    assert found.evidence == (
        "at step 20 the gradient was not finite in 2 of 3 layers: b, a",
        "the last finite total norm before was 5, nothing unusual",
    )
    assert found.change == "eps"
    assert found.remedy.startswith("behind b and before c, add 1e-6 to what a division divides by")
    assert "set_detect_anomaly(True) names the operation" in found.remedy


def test_in_every_layer_the_loss_is_to_blame() -> None:
    found = explain(a=[1.0] * 20 + [NAN], b=[1.0] * 20 + [NAN])
    assert found is not None
    assert (found.confidence, found.change) == (0.5, "eps")
    assert found.remedy.startswith("in the first operations or in the loss, add 1e-6")


def test_an_overflow_that_was_coming() -> None:
    found = explain(a=[0.6] * 20 + [600.0, INF], b=[0.8] * 20 + [800.0, 1e9])
    assert found is not None
    assert (found.confidence, found.layers) == (0.8, ("a",))
    assert found.evidence[1] == "the last finite total norm before was 1e+03, 1e+03 times the median"
    assert found.change == "clipping"
    assert (
        found.remedy
        == "clip at 3: 3 times this run's median norm; or lower the learning rate: the gradients grew first"
    )


def test_an_overflow_within_three_steps() -> None:
    found = explain(a=[5e3, 2e8, 2e18, INF])
    assert found is not None
    assert found.remedy.startswith("clip at 1: this run saw too few normal steps to tell")


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


@pytest.mark.parametrize(
    ("origin", "change", "remedy"),
    [
        (Origin("forward", "features", "Log"), "eps", "in features, log(x + 1e-6) in place of log(x)"),
        (Origin("backward", "weigh", "Sqrt"), "eps", "in weigh, sqrt(x + 1e-6) in place of sqrt(x): "),
        (Origin("backward", "weigh", "Div"), "eps", "in weigh, y / (x + 1e-6) in place of y / x"),
        (Origin("forward", "mine", "MyOwn"), "eps", "in mine, add 1e-6 to what a division divides by"),
        (Origin("backward", ""), "architecture", "take the loss of the logits: cross_entropy or"),
        (Origin("input", "Net"), "data_scaling", "leave out the examples that hold NaN or inf"),
    ],
)
def test_the_probed_operation_is_named(origin: Origin, change: str, remedy: str) -> None:
    history = History.from_grad_norms(a=[1.0] * 20 + [NAN], b=[1.0] * 20 + [NAN])
    alert = Alert(20, "nonfinite", None, Severity.ERROR, NAN, INF, "")
    found = FirstNonFinite().explain(history, BackwardProfile(nonfinite=origin), [alert])
    assert found is not None
    assert found.confidence >= 0.8
    assert found.change == change
    assert found.remedy.startswith(remedy)
    assert origin.operation in found.evidence[-1]


def test_parameters_that_are_broken_by_then_tell_no_origin() -> None:
    history = History.from_grad_norms(a=[1.0] * 20 + [NAN], b=[1.0] * 21)
    alert = Alert(20, "nonfinite", "a", Severity.ERROR, NAN, INF, "")
    way = Segment("norm", "norm", "Div", NAN, NAN), Segment("fc", "weight", "Addmm", NAN, NAN)
    profile = BackwardProfile(way, nonfinite=Origin("parameter", "a.weight"))
    found = FirstNonFinite().explain(history, profile, [alert])
    assert found is not None
    assert found.confidence == 0.6
    assert found.evidence[-2:] == (
        "the parameter a.weight holds NaN or inf by now",
        "on the way are operations that are not finite at some input: Div in norm",
    )
    assert found.remedy.startswith("behind a and before b, ")


def test_in_float16_it_is_more_likely_an_overflow() -> None:
    history = History.from_grad_norms(a=[NAN], b=[NAN])
    alert = Alert(0, "nonfinite", None, Severity.ERROR, NAN, INF, "")
    found = FirstNonFinite().explain(history, BackwardProfile(half=True), [alert])
    assert found is not None
    assert found.confidence == 0.25


@pytest.mark.parametrize("argument", ["growth", "factor"])
def test_arguments_out_of_range(argument: str) -> None:
    with pytest.raises(ValueError, match=f"FirstNonFinite: {argument} must be above 1"):
        FirstNonFinite(**{argument: 1.0})


@pytest.mark.parametrize(
    ("operations", "fix"),
    [
        (["Exp", "Exp"], "use exp(x.clamp(max=10)) in place of exp(x), or as an activation a ReLU"),
        (["Exp", "Log"], "in the first operations or in the loss, add 1e-6"),
        (["Tanh"], "in the first operations or in the loss, add 1e-6"),
    ],
)
def test_where_all_is_broken_the_only_operation_that_may_have_done_it_is_named(operations: list[str], fix: str) -> None:
    history = History.from_grad_norms(a=[NAN], b=[NAN])
    alert = Alert(0, "nonfinite", None, Severity.ERROR, NAN, INF, "")
    way = tuple(Segment(f"act{i}", "activation", name, NAN, NAN) for i, name in enumerate(operations))
    profile = BackwardProfile(way, nonfinite=Origin("parameter", "a.weight"))
    found = FirstNonFinite().explain(history, profile, [alert])
    assert found is not None
    assert found.remedy.startswith(fix)


def test_many_operations_are_counted() -> None:
    history = History.from_grad_norms(a=[NAN], b=[NAN])
    alert = Alert(0, "nonfinite", None, Severity.ERROR, NAN, INF, "")
    profile = BackwardProfile(tuple(Segment(f"act{i}", "activation", "Exp", NAN, NAN) for i in range(9)))
    found = FirstNonFinite().explain(history, profile, [alert])
    assert found is not None
    assert found.evidence[-1].endswith("Exp in act8, Exp in act7, Exp in act6 and 6 more")
