from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import Diagnosis, History
from gradwatch.diagnosis import BrokenStep, FirstNonFinite, LossScale
from tests.diagnosis.profiles import INF, NAN, alert
from tests.histories import stats

FINE, BROKEN, UNKNOWN = False, True, None
"""What a step did to the weights."""


def run(norms: list[float], did: list[bool | None], half: bool = True, **more: Any) -> History:
    """One layer's norms, and what each step did after which there was another."""
    history = History()
    for step, (norm, broken) in enumerate(zip(norms, [UNKNOWN, *did])):
        history.append(stats(step, {"fc": norm}, broken=broken, half=half, **more))
    return history


def explain(history: History, rule: str = "overflow", **more: Any) -> Diagnosis | None:
    return BrokenStep().explain(history, None, [alert(rule, "fc", **more)])


def test_in_float16_adams_eps_is_zero() -> None:
    history = run([0.1, 0.2, NAN, NAN], [FINE, BROKEN, UNKNOWN])
    found = explain(history)
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == ("broken_step", "precision", 0.9, ("fc",))
    assert found.evidence == (
        "the step that followed the gradient of step 1 made NaN or inf of the weights, and that gradient was finite, "
        "of norm 0.2",
    )
    assert "eps=1e-4" in found.remedy
    assert LossScale().explain(history, None, [alert("overflow", "fc")]) is None


def test_in_float32_it_may_have_none() -> None:
    history = run([0.1, NAN], [BROKEN], half=False)
    found = explain(history, "nonfinite")
    assert found is not None
    assert (found.change, found.remedy.startswith("look what the optimizer divides by")) == ("eps", True)
    assert FirstNonFinite().explain(history, None, [alert("nonfinite", "fc")]) is None


@pytest.mark.parametrize(
    "history",
    [
        run([0.1, NAN, NAN], [FINE, BROKEN]),  # the weights were finite when the gradient was NaN
        run([0.1, NAN], [UNKNOWN]),  # as of LBFGS, or where the layers have changed
        run([0.1, NAN], [FINE]),
        run([6e4, NAN], [BROKEN]),  # it was near the end of float16
        run([0.1, 0.2], [FINE]),
        run([NAN, NAN], [BROKEN]),
        run([INF], []),
        run([0.0, NAN], [BROKEN]),
        run([0.1, 0.1, NAN], [BROKEN, FINE]),  # what is broken already is not broken again
        run([0.1] * 30 + [NAN], [FINE] * 15 + [UNKNOWN] * 15),
        run([0.1, NAN], [BROKEN], skipped=True),
        History.from_grad_norms(fc=[0.1, NAN]),
        History(),
    ],
)
def test_what_is_something_else(history: History) -> None:
    assert explain(history) is None


def test_what_follows_the_step_itself_is_explained_and_what_follows_others_is_not() -> None:
    history = run([0.1, NAN], [BROKEN])
    assert explain(history, follows="update_ratio") is not None
    assert explain(history, follows="exploding") is None
    assert explain(history, "exploding") is None


def test_a_name_that_is_long() -> None:
    found = BrokenStep().explain(run([0.1, NAN], [BROKEN]), None, [alert("overflow", "x" * 300)])
    assert found is not None
    assert found.layers == ("x" * 300,)


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float16, 1e-8), (torch.float32, 0.0)])
def test_adam_without_an_eps(dtype: torch.dtype, eps: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=eps)
    inputs, targets = torch.randn(32, 8).relu().to(dtype), torch.randint(0, 3, (32,))
    inputs[:, 0] = 0
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs).float(), targets).backward()
            optimizer.step()
    assert [found.cause for found in monitor.report().diagnoses] == ["broken_step"]


def test_nan_in_the_data_is_no_step_of_weights_of_zero() -> None:
    """Whose size is not known: they were zero."""
    model = nn.Linear(4, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gw.watch(model, optimizer, sinks=()) as monitor:
        for step in range(4):
            x = torch.full((8, 4), torch.nan if step == 1 else 1.0)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), torch.ones(8, 1)).backward()
            optimizer.step()
    assert "broken_step" not in {found.cause for found in monitor.report().diagnoses}
