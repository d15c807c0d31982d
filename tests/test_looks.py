"""A close look at a step: what it is made of, and what becomes of a part that fails."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from gradwatch.faults import Faults, GradwatchWarning
from gradwatch.graph import Stranger
from gradwatch.layers import LayerTable
from gradwatch.looks import Looks
from tests.fingerprint import hook_counts
from tests.tensors import INF, NAN


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


def hooks_on(model: nn.Module) -> int:
    return sum(n for module in model.modules() for n in hook_counts(module).values())


def looks_at(model: nn.Module, strict: bool = True) -> tuple[Looks, LayerTable]:
    table = LayerTable(model)
    return Looks(table, Faults(strict)), table


def step(model: nn.Module, scale: float = 1.0) -> None:
    model.zero_grad()
    (scale * model(torch.ones(5, 4)).sum()).backward()


def test_what_one_look_shows() -> None:
    model = network()
    looks, table = looks_at(model)
    looks.expect(None)
    looks.begin(look=True)
    step(model)
    looks.add(table.collect(None))
    seen = looks.take(None, scaled=False)
    assert (seen.ndims, seen.half, seen.not_zeroed, seen.alike, seen.idle) == ([2, 1, 2, 1], False, None, [], None)
    assert seen.trained.tolist() == [True, True]
    assert seen.closeup is not None
    assert seen.closeup.data_rms[0] == pytest.approx(1.0)
    assert hooks_on(model) == 0


def test_the_next_step_begins_anew_and_one_that_is_not_looked_at_has_no_hooks() -> None:
    model = network()
    looks, table = looks_at(model)
    looks.begin(look=True)
    step(model)
    looks.add(table.collect(None))
    looks.begin(look=True)
    looks.add(table.collect(None))
    assert looks.take(None, scaled=False).ndims == [2, 1, 2, 1]
    looks.expect(None)
    assert hooks_on(model) > 0
    looks.begin(look=False)
    assert hooks_on(model) == 0


@pytest.mark.parametrize("scale", [0.0, NAN, INF])
def test_gradients_that_tell_nothing(scale: float) -> None:
    model = network()
    looks, table = looks_at(model)
    looks.expect(None)
    looks.begin(look=True)
    step(model, scale)
    looks.add(table.collect(None))
    seen = looks.take(None, scaled=False)
    assert (seen.alike, seen.half) == ([], False)


def test_a_frozen_layer_is_not_trained_and_none_that_the_optimizer_lacks() -> None:
    model = network()
    model[0].requires_grad_(False)
    looks, table = looks_at(model)
    looks.begin(look=True)
    step(model)
    looks.add(table.collect(None))
    assert looks.take(None, scaled=False).trained.tolist() == [False, True]
    assert looks.take(set(), scaled=False).trained.tolist() == [False, False]


def test_idle_parameters_and_strangers_take_two_looks() -> None:
    model, stranger = network(), nn.Parameter(torch.ones(7))
    looks, table = looks_at(model)
    trained = {id(p) for p in model[2].parameters()}
    found = []
    for known in (None, [stranger], [stranger], [stranger]):
        looks.strangers = None if known is None else [Stranger(weakref.ref(p), p.numel()) for p in known]
        stranger.grad = torch.ones(7)
        looks.begin(look=True)
        step(model)
        looks.add(table.collect(None))
        idle = looks.take(trained, scaled=False).idle
        assert idle is not None
        found.append((sorted({*idle.rows} & {0, 1}), idle.strangers))
    assert found == [([], None), ([0], None), ([0], 7), ([0], 7)]


def test_strangers_that_are_gone_were_made_for_one_step() -> None:
    model = network()
    looks, table = looks_at(model)
    looks.strangers = [Stranger(weakref.ref(nn.Parameter(torch.ones(7))), 7)]
    looks.begin(look=True)
    step(model)
    looks.add(table.collect(None))
    idle = looks.take({id(p) for p in model.parameters()}, scaled=False).idle
    assert idle is not None
    assert idle.strangers == 7


def test_a_scalers_scale_may_have_changed_since() -> None:
    model, weights = network(), torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    for scaled, expected in ((False, 55**0.5), (True, NAN)):
        looks, table = looks_at(model)
        looks.expect(None)
        looks.begin(look=True)
        (weights * model(torch.ones(5, 4))).sum().backward()
        looks.add(table.collect(None))
        closeup = looks.take(None, scaled).closeup
        assert closeup is not None
        assert closeup.output_gradient == pytest.approx(55**0.5)
        assert closeup.loss_gradient == pytest.approx(expected, nan_ok=True)


def test_a_part_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    looks, table = looks_at(model, strict=False)

    def fail(*_: object) -> None:
        raise MemoryError("on purpose")

    monkeypatch.setattr("gradwatch.looks.AlikeUnits.look", fail)
    looks.begin(look=True)
    step(model)
    with pytest.warns(GradwatchWarning, match="the look at units that are alike failed, it is missing at this step"):
        looks.add(table.collect(None))
    seen = looks.take(None, scaled=False)
    assert (seen.alike, seen.ndims) == (None, [2, 1, 2, 1])
