"""What hooks hear: whose operation it was, and that nobody notices them."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gradwatch import recording as module_under_test
from gradwatch.recording import OUTSIDE, Call, Recording
from tests.fingerprint import hook_counts
from tests.tensors import normal


class Tower(nn.Module):
    """Code of its own before, between and after what its children do, one of which is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(3, 3), nn.Sequential(nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.fc(torch.relu(self.act(self.fc(x)))))


def heard(recording: Recording) -> list[tuple[str, Call]]:
    return [
        (node.name, recording.calls[h.call] if h.call != OUTSIDE else Call())
        for node, h in zip(recording.graph.nodes, recording.heard)
        if node.data
    ]


def hooks_on(model: nn.Module) -> int:
    return sum(sum(hook_counts(module).values()) for module in model.modules())


def test_an_operation_belongs_to_the_innermost_call_that_made_it() -> None:
    model = Tower()
    recording = Recording(model)
    model(normal(2, 3)).sum().backward()
    recording.stop()
    assert heard(recording) == [
        ("Addmm", Call("fc", "Linear", 0)),
        ("Tanh", Call("act.0", "Tanh", 0)),
        ("Relu", Call("Tower", "Tower", 0)),
        ("Addmm", Call("fc", "Linear", 1)),
        ("Sin", Call("Tower", "Tower", 0)),
    ]


def test_parts_that_are_called_by_themselves_are_joined() -> None:
    """As in the training_step of a LightningModule, whose own forward is never called."""
    model = Tower()
    recording = Recording(model)
    torch.sin(model.act(torch.relu(model.fc(normal(2, 3))))).sum().backward()
    recording.stop()
    assert heard(recording) == [
        ("Addmm", Call("fc", "Linear", 0)),
        ("Relu", Call()),
        ("Tanh", Call("act.0", "Tanh", 0)),
    ]
    assert all(h.times == 1 for h, node in zip(recording.heard, recording.graph.nodes) if node.data)


def test_of_several_batches_the_first_is_heard() -> None:
    model = Tower()
    recording = Recording(model)
    for seed in range(3):
        model(normal(2, 3, seed=seed)).sum().backward()
    recording.stop()
    assert len(heard(recording)) == 5
    assert max(h.times for h in recording.heard) == 1


def test_a_pass_without_gradients_does_not_count() -> None:
    model = Tower()
    recording = Recording(model)
    with torch.no_grad():
        model(normal(2, 3))
    with torch.inference_mode():
        model(normal(2, 3))
    assert recording.calls == []
    model(normal(2, 3)).sum().backward()
    recording.stop()
    assert len(heard(recording)) == 5


def test_a_call_that_raises_ends() -> None:
    model = Tower()
    recording = Recording(model)
    with pytest.raises(RuntimeError, match="shapes"):
        model(normal(2, 7))
    model(normal(2, 3)).sum().backward()
    recording.stop()
    assert [call.layer for _, call in heard(recording)] == ["fc", "act.0", "Tower", "fc", "Tower"]


class Threaded(nn.Module):
    """Something runs beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.beside = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        thread = threading.Thread(target=self.beside, args=(x,))
        thread.start()
        thread.join()
        return self.fc(x)


def test_calls_of_another_thread_are_not_mixed_in() -> None:
    model = Threaded()
    recording = Recording(model)
    model(normal(2, 3)).sum().backward()
    recording.stop()
    assert heard(recording) == [("Addmm", Call("fc", "Linear", 0))]
    assert [call.layer for call in recording.calls] == ["Threaded", "fc"]


def test_all_hooks_are_removed() -> None:
    model = Tower()
    before = {name: sorted(vars(module)) for name, module in model.named_modules()}
    recording = Recording(model)
    assert hooks_on(model) > 0
    output = model(normal(2, 3))
    recording.stop()
    assert hooks_on(model) == 0
    assert {name: sorted(vars(module)) for name, module in model.named_modules()} == before
    output.sum().backward()
    assert all(h.times == 0 for h in recording.heard)


def test_what_fails_in_a_hook_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Tensor) -> float:
        raise ZeroDivisionError("on purpose")

    model = Tower()
    recording = Recording(model)
    output = model(normal(2, 3))
    monkeypatch.setattr(module_under_test, "norm", broken)
    output.sum().backward()
    recording.stop()
    assert list(recording.notes) == ["a look at the gradient failed: ZeroDivisionError: on purpose"]
    assert model.fc.weight.grad is not None


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "copy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: saved(model),
}


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_the_model_is_not_heard(way: str) -> None:
    model = Tower()
    recording = Recording(model)
    other = COPIES[way](model)
    other(normal(2, 3)).sum().backward()
    assert recording.calls == []
    recording.stop()


def test_nothing_of_the_step_is_kept() -> None:
    class Keep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made.append(weakref.ref(y := F.relu(x)))
            return torch.sin(y)

    made: list[weakref.ref[Tensor]] = []
    gc.collect()
    gc.disable()
    try:
        model = nn.Sequential(nn.Linear(3, 3), Keep(), nn.Linear(3, 3))
        parameter = weakref.ref(model[0].weight)
        recording = Recording(model)
        output = model(normal(2, 3))
        assert made[0]() is not None
        output.sum().backward()
        del output
        assert made[0]() is None
        model(normal(2, 3))  # and without a backward pass
        assert made[1]() is None
        recording.stop()
        del model
        gc.collect()
        assert parameter() is None
        assert [node.name for node in recording.graph.nodes if node.data] == ["Addmm", "Relu", "Sin", "Addmm"]
    finally:
        gc.enable()


def test_what_is_compiled_gets_no_hooks() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].compile(backend="eager")
    recording = Recording(model)
    assert recording.compiled
    assert [hooks_on(module) > 0 for module in (model[0], model[1])] == [False, True]
    recording.stop()
