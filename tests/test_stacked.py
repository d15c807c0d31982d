"""stacked_weights() of models as they are written; what is linear is checked by the models themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gradwatch.probing import probe
from tests.models import GALLERY, backward, build
from tests.tensors import normal


class Given(nn.Module):
    """Three layers of which a function makes an output."""

    def __init__(self, forward: Callable[[Given, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def stacked(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    with probe(model) as profile:
        model(x).square().sum().backward()
    return tuple(name.removesuffix(".weight") for name in profile.stacked)


STRAIGHT: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "plain": lambda m, x: m.c(m.b(m.a(x))),
    "a skip": lambda m, x: m.c(m.b(h := m.a(x)) + h),
    "averaged": lambda m, x: m.c(m.b(m.a(x)).mean(0, keepdim=True)),
    "over channels": lambda m, x: m.c(F.avg_pool2d(m.b(m.a(x)).T.reshape(1, 8, -1, 1), (2, 1)).flatten(2)[0].T),
    "turned": lambda m, x: (m.c.weight @ m.b(m.a(x)).T).T,
    "in another order": lambda m, x: m.c(m.b(m.a(x)).flip(1)),
}

BENT: dict[str, Callable[[Given, Tensor], Tensor]] = {
    "an activation": lambda m, x: m.c(m.b(m.a(x)).relu()),
    "an activation first": lambda m, x: m.c(m.b(m.a(x).tanh())),
    "written by hand": lambda m, x: m.c(m.b(h := m.a(x)) * (h > 0)),
    "chosen": lambda m, x: m.c(torch.where((h := m.b(m.a(x))) > 0, h, 0)),
    "the largest": lambda m, x: m.c((h := m.b(m.a(x))).gather(1, h.argsort(1))),
    "in one of two ways": lambda m, x: m.c(m.b(h := m.a(x)) + h.exp()),
    "straight through": lambda m, x: m.c((h := m.b(m.a(x))) + (h.sign() - h).detach()),
    "of each instance": lambda m, x: m.c(F.instance_norm(m.b(m.a(x))[None])[0]),
    "gates": lambda m, x: m.c(m.b(h := m.a(x)) * h),
    "squares": lambda m, x: m.c(m.b(m.a(x)) ** 2),
    "a quotient": lambda m, x: m.c(1 / (4 + m.b(m.a(x)))),
    "normalised": lambda m, x: m.c(F.layer_norm(m.b(m.a(x)), (8,))),
    "attention": lambda m, x: m.c((m.a(x) @ m.a(x).T).softmax(1) @ m.b(m.a(x))),
    "again and again": lambda m, x: m.c(m.b(m.b(m.a(x)))),
    "one layer": lambda m, x: m.a(x),
    "one layer, twice": lambda m, x: m.a(x) + m.a(2 * x),
}


@pytest.mark.parametrize("forward", STRAIGHT.values(), ids=STRAIGHT)
def test_layers_without_an_activation(forward: Callable[[Given, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, x, y = Given(forward), normal(5, 6), normal(5, 6, seed=1)
    assert stacked(model, x) == ("a", "b")
    # What is given half of each gives out half of each.
    torch.testing.assert_close(model((x + y) / 2), (model(x) + model(y)) / 2)


def test_what_follows_the_last_may_bend() -> None:
    assert stacked(Given(lambda m, x: m.c(m.b(m.a(x))).softmax(1)), normal(5, 6)) == ("a", "b")


@pytest.mark.parametrize("forward", BENT.values(), ids=BENT)
def test_anything_else(forward: Callable[[Given, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert stacked(Given(forward), normal(5, 6)) == ()


@pytest.mark.parametrize(("width", "out", "found"), [(3, 4, False), (4, 4, True), (3, 2, True), (1, 1, True)])
def test_a_bottleneck_is_none(width: int, out: int, found: bool) -> None:
    """A product of narrow matrices has a rank that a single layer's has not."""
    assert bool(stacked(nn.Sequential(nn.Linear(6, width), nn.Linear(width, out)), normal(5, 6))) is found


def test_dropout_and_batch_normalisation_bend_nothing() -> None:
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.1), nn.Conv2d(8, 8, 3), nn.AvgPool2d(2), nn.Flatten()]
    assert stacked(nn.Sequential(*body, nn.Linear(32, 2)), normal(4, 3, 8, 8)) == ("0", "3")
    assert stacked(nn.Sequential(*body[:5], nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)), normal(4, 3, 8, 8)) == ()


class DropBlock(nn.Module):
    """Drops what is below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        return h * (h > 0)


def test_a_name_or_two_that_look_like_it_are_none() -> None:
    assert stacked(nn.Sequential(nn.Linear(6, 8), DropBlock(), nn.Linear(8, 4)), normal(5, 6)) == ()
    norm = nn.Sequential(nn.Conv1d(9, 8, 3), nn.InstanceNorm1d(8), nn.Conv1d(8, 8, 3))
    assert stacked(norm, normal(4, 9, 8)) == ()


@pytest.mark.parametrize(("width", "found"), [(8, ()), (101, ("a",))])
def test_a_bottleneck_may_have_several_heads(width: int, found: tuple[str, ...]) -> None:
    model = Given(lambda m, x: torch.cat([m.b(h := m.a(x)), m.c(h)], 1))
    model.a, model.b, model.c = nn.Linear(100, width), nn.Linear(width, 100), nn.Linear(width, 1)
    assert stacked(model, normal(5, 100)) == found


def test_a_frozen_layer_is_none_of_them() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4))
    assert stacked(model, normal(5, 6)) == ()
    model[0].requires_grad_(False)  # what is trained is a linear map of what it gives
    assert stacked(model, normal(5, 6)) == ("2",)


def test_a_weight_that_is_computed_may_be_anything() -> None:
    assert stacked(nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.Linear(8, 4)), normal(5, 6)) == ()


@pytest.mark.parametrize("name", GALLERY)
def test_models_as_they_are(name: str) -> None:
    example = build(name)
    with probe(example.model) as profile:
        backward(example)
    assert profile.stacked == ()
