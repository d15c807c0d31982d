"""Where NaN and inf came from: the first module, operation, parameter or input."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradwatch.finiteness import ForwardPass, first_nonfinite
from gradwatch.probing import Probe
from gradwatch.profile import FirstNonFinite, Operation
from tests.tensors import INF, NAN, normal


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


class LogBetween(nn.Module):
    """A fault in the code between two modules, whose second gets what is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.log(self.first(x) * 0))


def stack(function: Callable[[Tensor], Tensor]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), Apply(function), nn.Sequential(nn.Linear(3, 3), nn.Tanh()))


def with_parameter(value: float) -> nn.Module:
    model = stack(torch.sin)
    with torch.no_grad():
        model.get_parameter("2.0.bias")[1] = value
    return model


def found(model: nn.Module, x: Tensor, factor: float = 1.0) -> FirstNonFinite | None:
    probe = Probe(model, nonfinite=True)
    probe.arm()
    (factor * model(x).sum()).backward()
    profile = probe.take()
    assert profile is not None
    return profile.nonfinite


X = normal(4, 3)


class Overflow(torch.autograd.Function):
    """Finite on the way forward, inf on the way back."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient / 0


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, float, FirstNonFinite | None]] = {
    "all is finite": (lambda: stack(torch.sin), X, 1.0, None),
    "a module": (lambda: stack(lambda x: torch.log(x.abs() * 0)), X, 1.0, FirstNonFinite("forward", "1")),
    "its one operation": (lambda: stack(torch.log), -X.abs(), 1.0, FirstNonFinite("forward", "1", "Log")),
    "code between modules": (LogBetween, X, 1.0, FirstNonFinite("forward", "LogBetween")),
    "an input": (lambda: stack(torch.sin), X * NAN, 1.0, FirstNonFinite("input", "Sequential")),
    "a parameter of NaN": (lambda: with_parameter(NAN), X, 1.0, FirstNonFinite("parameter", "2.0.bias")),
    "the backward pass": (lambda: stack(lambda x: torch.sqrt(x * 0)), X, 1.0, FirstNonFinite("backward", "1", "Sqrt")),
    "the user's function": (lambda: stack(Overflow.apply), X, 1.0, FirstNonFinite("backward", "1", "Overflow")),
    "the loss": (lambda: stack(torch.sin), X, NAN, FirstNonFinite("backward", "")),
    "the loss's scale": (lambda: stack(torch.sin), X, INF, FirstNonFinite("backward", "")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_is_found(case: str) -> None:
    build, x, factor, expected = CASES[case]
    assert found(build(), x, factor) == expected


def test_the_gradient_of_a_weight_counts_though_the_data_is_fine() -> None:
    """4e38 is more than float32 has: the product of the input and of the gradient, of which both are fine."""
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 1e-25)
    assert found(model, torch.full((1, 1), 2e19), 2e19) == FirstNonFinite("backward", "Linear", "Addmm")


class Masked(nn.Module):
    """Scores, of which a mask hides some."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.hide = nn.Linear(3, 3), Apply(lambda x: x.masked_fill(torch.eye(3).bool(), -INF))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.softmax(self.hide(self.fc(x)) if mask is None else self.fc(x) + mask, -1)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_mask_that_comes_in_is_no_fault_of_itself(rows: int) -> None:
    """Where it hides all that there is, the softmax of nothing is NaN."""
    mask = torch.zeros(3, 3)
    mask[0, :rows] = -INF
    model = Masked()
    probe = Probe(model, nonfinite=True)
    probe.arm()
    model(normal(3, 3), mask=mask).sum().backward()
    profile = probe.take()
    assert profile is not None
    assert profile.nonfinite == (None if rows == 1 else FirstNonFinite("forward", "Masked"))


def test_a_mask_that_a_module_puts_on_is_no_fault() -> None:
    assert found(Masked(), normal(3, 3)) is None


def test_what_came_out_of_the_model_counts_without_a_backward_pass() -> None:
    model = stack(torch.log)
    probe = Probe(model, nonfinite=True)
    probe.arm()
    model(-X.abs())
    profile = probe.take()
    assert profile is not None
    assert profile.nonfinite == FirstNonFinite("forward", "1", "Log")
    assert profile.segments == ()


def test_what_is_reported_needs_a_reason() -> None:
    assert first_nonfinite(ForwardPass({}), ()) is None
    unseen = Operation(0, "Addmm", "weight", "fc", 0, (None,), math.nan, calls=0)
    assert first_nonfinite(ForwardPass({}), (unseen,)) is None
