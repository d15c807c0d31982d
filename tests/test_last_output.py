"""LastOutput against the gradient that autograd gives for the outputs of the last layer."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from math import isnan
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gradwatch.last_output import LastOutput
from gradwatch.records import MISTAKES
from tests.tensors import normal


def heard(model: nn.Module, step: Callable[[], Any], part: int = 0) -> float:
    """The norm that a LastOutput tells of one step, or the error, listening to every layer of ``model``."""
    last, layers = LastOutput(), [m for m in model.modules() if isinstance(m, (nn.Linear, nn.LSTM, nn.RNNCell))]
    handles = [m.register_forward_hook(partial(last.listen, i)) for i, m in enumerate(layers)]
    step()
    for handle in handles:
        handle.remove()
    return last.take()[part]


class Net(nn.Module):
    """Layers in another order than they are called in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body = nn.Linear(6, 4), nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.tanh(self.body(x)))
        return y


X, LABELS = normal(8, 5), torch.arange(8) % 4
SOFTMAX_ERROR = float((torch.softmax(Net()(X).detach(), 1) - F.one_hot(LABELS, 4)).div(8).norm())


def one_by_one(net: Net) -> Tensor:
    losses = [F.cross_entropy(net(X[i : i + 1]), LABELS[i : i + 1]) for i in range(8)]
    return torch.stack(losses).mean()


STEPS: dict[str, Callable[[Net], Tensor]] = {
    "cross entropy": lambda net: F.cross_entropy(net(X), LABELS),
    "log_softmax and NLL": lambda net: F.nll_loss(F.log_softmax(net(X), 1), LABELS),
    "its layers called by the loop": lambda net: F.cross_entropy(net.head(net.body(X).tanh()), LABELS),
    "changed in place": lambda net: F.cross_entropy(net(X).mul_(1.0), LABELS),
    "one example after the other": one_by_one,
}


@pytest.mark.parametrize("name", STEPS)
def test_whoever_calls_the_last_layer_and_whatever_follows_it(name: str) -> None:
    net = Net()
    assert heard(net, lambda: STEPS[name](net).backward()) == pytest.approx(SOFTMAX_ERROR, rel=1e-5)


def test_nothing_of_a_loss_of_derivatives() -> None:
    """As of a network that solves an equation: its outputs' gradient has no more to do with an error."""
    net, x = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)), normal(16, 2).requires_grad_()

    def step() -> None:
        y = net(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        ((slope - 1) ** 2).mean().backward()

    assert isnan(heard(net, step))


@pytest.mark.parametrize("name", STEPS)
def test_the_error_of_its_probabilities(name: str) -> None:
    net = Net()
    p, y = torch.softmax(net(X).detach(), 1), F.one_hot(LABELS, 4).float()
    expected = ((p - y).square().sum() / 8 / ((y - y.mean(0)).square().sum() / 7)).sqrt()
    found = heard(net, lambda: STEPS[name](net).backward(), part=1)
    if name == "one example after the other":  # of which none has a scatter
        assert isnan(found)
    else:
        assert found == pytest.approx(float(expected), rel=1e-4)


class Cooled(Net):
    """Logits divided by a temperature, which follow the last layer."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x) / 10
        return y


def test_the_error_of_what_the_model_makes_of_its_last_layer() -> None:
    net, last = Cooled(), LastOutput()
    net.head.register_forward_hook(partial(last.listen, 0))
    net.register_forward_hook(last.listen_to_all)
    F.cross_entropy(net(X), LABELS).backward()
    p, y = torch.softmax(net(X).detach(), 1), F.one_hot(LABELS, 4).float()
    expected = ((p - y).square().sum() / 8 / ((y - y.mean(0)).square().sum() / 7)).sqrt()
    assert last.take().output_error == pytest.approx(float(expected), rel=1e-4)


def test_the_error_over_several_backward_passes() -> None:
    net = Net()

    def step(*parts: int) -> None:
        for i in parts:
            F.cross_entropy(net(X[i::2]), LABELS[i::2]).backward()

    each = [heard(net, partial(step, i), part=1) for i in (0, 1)]
    both = heard(net, partial(step, 0, 1), part=1)
    assert both == pytest.approx(((each[0] ** 2 + each[1] ** 2) / 2) ** 0.5)


def test_outputs_are_not_kept_but_those_of_the_layer_called_last() -> None:
    net, last = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), LastOutput()
    for number, layer in enumerate(net):
        layer.register_forward_hook(partial(last.listen, number))
    middle = net[0](torch.ones(5, 2))
    seen = weakref.ref(middle.untyped_storage())
    y = net[1](middle * 1.0)
    del middle
    assert seen() is None
    y.sum().backward()
    assert last._latest is None


def test_of_a_recurrent_layer_without_a_head() -> None:
    net, x, target = nn.LSTM(3, 4), normal(7, 2, 3), normal(7, 2, 4)
    with torch.no_grad():
        error = 2 * (net(x)[0] - target) / target.numel()
    assert heard(net, lambda: F.mse_loss(net(x)[0], target).backward()) == pytest.approx(float(error.norm()), rel=1e-5)


ONE_SIZE: dict[str, Callable[[Net], Any]] = {
    "mean absolute error": lambda net: F.l1_loss(net(X), torch.full((8, 4), 9.0)).backward(),
    "of some outputs": lambda net: F.l1_loss(net(X)[:, 1], torch.full((8,), 9.0)).backward(),
    "a Huber loss of large errors": lambda net: F.smooth_l1_loss(net(X), torch.full((8, 4), 9.0)).backward(),
    "no backward pass": lambda net: net(X),
}


@pytest.mark.parametrize("name", ONE_SIZE)
def test_nothing_where_the_gradient_does_not_follow_the_error(name: str) -> None:
    net = Net()
    assert torch.isnan(torch.tensor(heard(net, lambda: ONE_SIZE[name](net))))


def test_zero_is_zero() -> None:
    net = Net()
    assert heard(net, lambda: (0.0 * net(X)).sum().backward()) == 0.0


def asked(model: nn.Module, step: Callable[[], Any]) -> tuple[float, float]:
    """The norm at the last Linear layer's output, and at the model's own."""
    last, layers = LastOutput(), [m for m in model.modules() if isinstance(m, nn.Linear)]
    handles = [m.register_forward_hook(partial(last.listen, i)) for i, m in enumerate(layers)]
    handles.append(model.register_forward_hook(last.listen_to_all))
    step()
    for handle in handles:
        handle.remove()
    norm, _, of_all, *_ = last.take()
    return norm, of_all


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (torch.tensor([[1.0, 2.0], [1.0, 2.0]]), 0.0),
        (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 1.0),
        (torch.tensor([[3.0], [1.0]]), 0.2),
        (torch.zeros(4, 2), 0.0),
        (torch.ones(1, 3), float("nan")),
    ],
)
def test_how_much_of_the_outputs_differs(outputs: Tensor, expected: float) -> None:
    assert varying(outputs) == pytest.approx(expected, nan_ok=True, abs=1e-6)


def varying(*calls: Tensor) -> float:
    last = LastOutput()
    for outputs in calls:
        last.listen_to_all(nn.Identity(), (), outputs.requires_grad_() * 1.0)
    return last.take()[3]


@pytest.mark.parametrize(("second", "told"), [(True, MISTAKES.index("softmax")), (False, float("nan"))])
def test_a_mistake_is_one_of_all_calls(second: bool, told: float) -> None:
    net, last = Net(), LastOutput()
    net.head.register_forward_hook(partial(last.listen, 0))
    for softmax in (True, second):
        logits = net(X)
        F.cross_entropy(logits.softmax(1) if softmax else logits, LABELS).backward()
    assert last.take().loss_mismatch == pytest.approx(told, nan_ok=True)


def test_the_examples_of_all_calls_count() -> None:
    ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
    assert varying(ones, zeros) == pytest.approx(0.5)
    assert varying(ones, ones) == 0.0
    assert varying(torch.ones(1, 2), torch.zeros(1, 2)) == pytest.approx(0.5)
    assert isnan(varying(ones, torch.ones(8, 2)))


@pytest.mark.parametrize("scale", [1e-4, 300.0])
def test_half_precision_is_not_squared(scale: float) -> None:
    outputs = scale * normal(64, 1).sigmoid()
    assert varying(outputs.half()) == pytest.approx(varying(outputs), rel=0.02)


def test_of_log_probabilities_it_is_not_known() -> None:
    assert isnan(varying(normal(8, 5).log_softmax(1)))


def test_nothing_hangs_on_a_parameter_that_is_returned() -> None:
    p, last = nn.Parameter(torch.ones(3)), LastOutput()
    last.listen_to_all(nn.Identity(), (), p)
    assert not p._backward_hooks


TARGETS = normal(8, 4, seed=1)


@pytest.mark.parametrize("behind", [nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.Identity()])
def test_what_the_loss_asks_for_behind_the_last_layer(behind: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(5, 4), behind)
    z = model[0](X).detach().requires_grad_()
    y = behind(z).detach()
    F.mse_loss(behind(z), TARGETS).backward()
    assert z.grad is not None
    expected = pytest.approx((float(z.grad.norm()), float((2 * (y - TARGETS) / 32).norm())), rel=1e-5)
    assert asked(model, lambda: F.mse_loss(model(X), TARGETS).backward()) == expected


@pytest.mark.parametrize(
    "step",
    [
        lambda model: model(X).sum().backward(),  # of one size
        lambda model: model(X),
        lambda model: model(X[:1])[:, 0].backward(),
    ],
)
def test_a_loss_that_asks_for_nothing_in_particular(step: Callable[[nn.Module], Any]) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid())
    assert isnan(asked(model, lambda: step(model))[1])


def test_a_model_that_returns_its_own_loss() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.fc(x)
            return F.mse_loss(y, TARGETS), y

    model = Own()
    assert isnan(asked(model, lambda: model(X)[0].backward())[1])


def test_half_precision_and_many_elements() -> None:
    net = nn.Linear(2, 3000).bfloat16()
    x = normal(500, 2).bfloat16()
    with torch.no_grad():
        expected = float((2 * net(x).double()).norm())
    assert heard(net, lambda: net(x).square().sum().backward()) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("worst", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_gradient_that_is_not_finite_is_told_as_it_is(worst: float, dtype: torch.dtype) -> None:
    net, weights = nn.Linear(5, 4).to(dtype), torch.arange(32.0).view(8, 4).to(dtype)
    weights[3, 1] = worst
    found = heard(net, lambda: (net(X.to(dtype)) * weights).sum().backward())
    assert torch.equal(torch.tensor(found).isnan(), torch.tensor(worst).isnan())
    assert found == worst or worst != worst


def test_nothing_of_an_empty_batch_or_a_frozen_layer() -> None:
    net = nn.Linear(5, 4)
    assert torch.isnan(torch.tensor(heard(net, lambda: net(X[:0]).sum().backward())))
    net.requires_grad_(False)
    assert torch.isnan(torch.tensor(heard(net, lambda: net(X).sum())))


class Leaves(nn.Module):
    """Hands a parameter on as it is, and gives its outputs one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(5, 4), nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Iterator[Tensor]:
        yield self.fc(x)
        yield self.scale


def test_a_generator_is_left_alone_and_no_parameter_keeps_a_hook() -> None:
    net = Leaves()
    last = LastOutput()
    net.register_forward_hook(partial(last.listen, 0))
    outputs = list(net(X))
    assert len(outputs) == 2
    last.listen(1, net, (), net.scale)
    assert not net.scale._backward_hooks


def test_a_look_that_fails_leaves_the_last_layer_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    net, last = Net(), LastOutput()
    net.body.register_forward_hook(partial(last.listen, 0))
    net.head.register_forward_hook(partial(last.listen, 1))

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("gradwatch.last_output.output_error", fail)
    STEPS["cross entropy"](net).backward()
    *of_outputs, _, number = last.take()
    assert number == 1
    assert isnan(of_outputs[0])


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_no_warning_of_torch_gets_out(rows: int, dtype: torch.dtype) -> None:
    net = nn.Linear(5, 1, dtype=dtype)

    def step() -> None:
        net(normal(rows, 5).to(dtype)).abs().sum().backward()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isnan(heard(net, step))
