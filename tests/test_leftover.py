from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from gradwatch.leftover import Leftover


def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def backward(net: nn.Module, times: int = 1) -> None:
    for _ in range(times):
        net(torch.ones(4, 3)).square().sum().backward()


def armed(net: nn.Module) -> Leftover:
    backward(net)
    leftover = Leftover()
    leftover.arm([*net.parameters()])
    return leftover


def test_gradients_that_are_added_to_the_last_step() -> None:
    net = model()
    leftover = armed(net)
    backward(net, times=2)
    assert leftover.take() is True


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_gradients_that_were_zeroed(set_to_none: bool, micro_batches: int) -> None:
    net = model()
    leftover = armed(net)
    net.zero_grad(set_to_none)
    backward(net, micro_batches)
    assert leftover.take() is False


def test_zeroed_after_the_pass_of_another_loss() -> None:
    """As a discriminator's, after the generator's loss has gone through it."""
    net = model()
    leftover = armed(net)
    backward(net)
    net.zero_grad()
    backward(net)
    assert leftover.take() is False


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
@pytest.mark.parametrize(("value", "there"), [(float("nan"), True), (float("inf"), True), (1e-6, True), (0.0, False)])
def test_hostile_gradients(dtype: torch.dtype, value: float, there: bool) -> None:
    weight, empty = torch.ones(3, dtype=dtype, requires_grad=True), torch.ones(0, requires_grad=True)
    weight.grad = torch.full((3,), value, dtype=dtype)
    leftover = Leftover()
    leftover.arm([weight])
    weight.sum().abs().backward()
    assert leftover.take() is there
    empty.sum().backward()
    leftover.arm([empty])
    empty.sum().backward()
    assert leftover.take() is False


def test_no_backward_pass_tells_nothing() -> None:
    assert armed(model()).take() is None


def test_nothing_to_listen_to() -> None:
    leftover, sparse = Leftover(), nn.Embedding(4, 2, sparse=True)
    sparse(torch.tensor([1])).sum().backward()
    leftover.arm([*sparse.parameters(), *model().parameters()])  # sparse, and none yet
    assert leftover.take() is None


def test_gradients_stay_as_they_are_and_nothing_stays_behind() -> None:
    net, alone = model(), model()
    leftover = armed(net)
    backward(alone)
    for one in (net, alone):
        one.zero_grad()
        backward(one)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(_leaves(net), _leaves(alone)))  # type: ignore[arg-type]
    leftover.take()
    assert all(p._backward_hooks is None for p in net.parameters())
    reference = weakref.ref(net)
    leftover.arm([*net.parameters()])
    del net
    gc.collect()
    assert reference() is None


def test_what_is_not_added_does_not_count() -> None:
    """As of who asks torch.autograd.grad for a gradient, and puts it where the last one was."""
    net = model()
    leftover = armed(net)
    found = torch.autograd.grad(net(torch.ones(4, 3)).square().sum(), _leaves(net))
    for p, gradient in zip(net.parameters(), found):
        p.grad = gradient
    assert leftover.take() is None


def test_a_parameter_that_nobody_zeroes_is_no_sign() -> None:
    """It may be none of the optimizer's, and the others are zeroed."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    leftover = armed(net)
    net[0].zero_grad()
    backward(net)
    assert leftover.take() is False


def test_frozen_parameters_with_a_gradient_from_before() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    backward(net)
    net[1].requires_grad_(False)
    leftover = Leftover()
    leftover.arm([*net.parameters()])
    backward(net)
    assert leftover.take() is True


def test_it_goes_with_whoever_armed_it() -> None:
    net = model()
    leftover = armed(net)
    del leftover
    gc.collect()
    assert all(p._backward_hooks is None for p in net.parameters())


def test_a_copy_of_the_model_does_not_listen() -> None:
    net = model()
    leftover = armed(net)
    backward(copy.deepcopy(net))
    assert leftover.take() is None


def _leaves(net: nn.Module) -> list[Tensor]:
    return [*net.parameters()]


def test_no_gradient_is_copied() -> None:
    net, arrived = model(), []
    leftover = armed(net)
    net.zero_grad()
    handle = net.weight.register_hook(lambda gradient: arrived.append(gradient.data_ptr()))
    backward(net)
    assert leftover.take() is False
    assert arrived == [net.weight.grad.data_ptr()]  # type: ignore[union-attr]
    assert net.weight._backward_hooks  # the user's own
    handle.remove()


@pytest.mark.parametrize("by_copy", [True, False])
def test_gradients_that_are_put_in_place_by_hand_are_not_added(by_copy: bool) -> None:
    """As of several losses, whose gradients are projected first; also beside a backward pass of another network."""
    net = model()
    leftover = armed(net)
    gradients = torch.autograd.grad(net(torch.ones(4, 3)).sum(), [*net.parameters()])
    for p, gradient in zip(net.parameters(), gradients):
        assert p.grad is not None
        if by_copy:
            p.grad.copy_(gradient)
        else:
            p.grad = gradient
    assert leftover.take() is None


def test_nothing_is_left_on_the_parameters() -> None:
    net = model()
    leftover = armed(net)
    assert all(p._backward_hooks and p._post_accumulate_grad_hooks for p in net.parameters())  # type: ignore[attr-defined]
    leftover.close()
    assert all(p._backward_hooks is None and p._post_accumulate_grad_hooks is None for p in net.parameters())  # type: ignore[attr-defined]
