"""IdleParameters: which gradients nobody uses."""

from __future__ import annotations

import torch
from torch import Tensor

from gradwatch.idle import IdleParameters


def parameter(with_gradient: bool = True) -> Tensor:
    p = torch.ones(3, requires_grad=True)
    if with_gradient:
        p.grad = torch.ones(3)
    return p


def test_only_what_has_a_gradient_that_nobody_uses() -> None:
    trained, idle, unused, unwatched = parameter(), parameter(), parameter(with_gradient=False), parameter()
    frozen = parameter().requires_grad_(False)
    named = [(trained, 0), (idle, 1), (unused, 2), (frozen, 3), (unwatched, -1)]
    looks = IdleParameters()
    assert looks.look(named, {id(trained)}) == []
    assert looks.look(named, {id(trained)}) == [1]
    assert looks.look(named, {id(trained), id(idle)}) == []  # its group was added


def test_a_gradient_may_be_anything() -> None:
    """Also sparse, zero, NaN, empty and of float16."""
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    odd = [parameter() for _ in range(2)] + [torch.ones(0, requires_grad=True), torch.ones(2).half().requires_grad_()]
    for p, value in zip(odd, (0.0, torch.nan, 1.0, torch.inf)):
        p.grad = torch.full_like(p, value)
    named = list(zip([table.weight, *odd], range(5)))
    looks = IdleParameters()
    assert [looks.look(named, ()) for _ in range(2)] == [[], [0, 1, 2, 3, 4]]
    assert looks.look([], ()) == []


def test_another_optimizer_writes_to_its_parameters() -> None:
    p = parameter()
    looks = IdleParameters()
    for make in (torch.optim.SGD, torch.optim.Adam, lambda ps: torch.optim.AdamW(ps, foreach=True)):
        optimizer = make([p])  # type: ignore[operator]
        looks.look([(p, 0)], ())
        optimizer.step()
        assert looks.look([(p, 0)], ()) == []
        assert looks.look([(p, 0)], ()) == [0]


def test_one_that_writes_past_autograd() -> None:
    p = parameter()
    looks = IdleParameters()
    for _ in range(3):
        version = p._version
        assert looks.look([(p, 0)], ()) == []
        p.data.add_(0.1)
        assert p._version == version
