"""What a gradient scaler does to the gradients, at each moment of a step."""

import pytest
import torch
from torch import nn

from gradwatch.amp import Scaling, Unnoticed, fused_scaling, scaling


def scaled(fused: bool = False, **arguments):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, **arguments)
    scaler.scale(model(torch.ones(2, 3)).sum()).backward()
    return model, optimizer, scaler


def test_the_factor_is_the_scale_until_the_gradients_are_unscaled():
    _, optimizer, scaler = scaled()
    before = scaling(scaler, optimizer)
    scaler.unscale_(optimizer)
    assert (float(before.factor), scaling(scaler, optimizer)) == (1024.0, Scaling(None))


def test_an_unknown_optimizer_is_any():
    _, optimizer, scaler = scaled()
    assert scaling(scaler).factor is not None
    scaler.unscale_(optimizer)
    assert scaling(scaler) == Scaling(None)


def test_another_optimizers_unscaling_is_not_ours():
    _, optimizer, scaler = scaled()
    other = torch.optim.SGD([weight := nn.Parameter(torch.ones(2))])
    weight.grad = torch.ones(2)
    scaler.unscale_(other)
    assert float(scaling(scaler, optimizer).factor) == 1024.0


@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", enabled=False)])
def test_without_a_scaler_at_work_there_is_no_scaling(scaler):
    assert scaling(scaler) is None


def test_looking_leaves_no_trace_on_the_scaler():
    _, optimizer, scaler = scaled()
    before = scaler.state_dict()
    scaling(scaler, optimizer)
    assert scaler.state_dict() == before
    assert not scaler._per_optimizer_states


@pytest.mark.parametrize(("unscaled", "factor"), [(False, 1024.0), (True, None)])
def test_inside_the_step_of_a_fused_optimizer(unscaled, factor):
    _, optimizer, scaler = scaled(fused=True)
    seen = []
    optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(fused_scaling(optimizer)))
    if unscaled:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert [s.factor if s.factor is None else float(s.factor) for s in seen] == [factor]
    assert fused_scaling(optimizer) is None


class TestUnnoticed:
    def loop(self, unscale: bool = False, work: bool = True) -> list[bool]:
        model, optimizer, scaler = scaled()
        unnoticed, found = Unnoticed(), []
        for _ in range(4):
            if unscale:
                scaler.unscale_(optimizer)
            found.append(unnoticed.is_at_work())
            if work:
                scaler.step(optimizer)
                scaler.update()
            scaler.scale(model(torch.ones(2, 3)).sum()).backward()
        return found

    def test_a_scaler_at_work_is_found_once(self):
        assert self.loop() == [False, True, False, False]

    def test_also_one_of_a_class_of_its_own(self, monkeypatch):
        class Own(torch.amp.GradScaler):
            pass

        monkeypatch.setattr(torch.amp, "GradScaler", Own)
        model, optimizer, scaler = scaled()
        monkeypatch.undo()
        unnoticed = Unnoticed()
        assert type(scaler) is Own
        assert not unnoticed.is_at_work()
        scaler.step(optimizer)
        scaler.update()
        scaler.scale(model(torch.ones(2, 3)).sum()).backward()
        assert unnoticed.is_at_work()

    def test_gradients_that_it_unscaled_are_right(self):
        assert not any(self.loop(unscale=True))

    def test_a_scaler_that_rests_is_of_something_else(self):
        assert not any(self.loop(work=False))


def test_an_optimizer_that_has_stepped_says_nothing_of_an_unknown_one():
    """The discriminator has stepped, and the generator's gradients are still scaled."""
    _, optimizer, scaler = scaled()
    scaler.step(optimizer)
    assert float(scaling(scaler).factor) == 1024.0
    assert scaling(scaler, optimizer) == Scaling(None)
