"""One step under the microscope: numbers against torch's own and closed forms, and training that does not notice."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from gradwatch.probing import COMPILED, NO_GRADIENT, Probe, probe
from gradwatch.profile import BackwardProfile, Operation
from tests.fingerprint import hook_counts, printed
from tests.models import GALLERY, CellLoop, Example, LastStep, backward, build
from tests.tensors import NAN, normal, reference

Step = Callable[[], Any]


def operations(model: nn.Module, step: Step) -> tuple[Operation, ...]:
    """What one step of ``model`` did."""
    microscope = Probe(model)
    microscope.arm()
    step()
    profile = microscope.take()
    assert profile is None or isinstance(profile, BackwardProfile)
    return microscope.operations


def names(found: tuple[Operation, ...]) -> list[str]:
    return [operation.name for operation in found]


def hooks_on(model: nn.Module) -> int:
    return sum(sum(hook_counts(module).values()) for module in model.modules())


# Numbers


def deep() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3), nn.ReLU())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_gradients_of_a_perceptron_are_those_of_float64(scale: float) -> None:
    model, x = deep(), normal(5, 6)
    found = operations(model, lambda: (model(x).square().sum() * scale).backward())
    wide = copy.deepcopy(model).double()
    hidden, outputs = x.double(), []
    for layer in wide:
        hidden = layer(hidden)
        outputs.append(hidden)
    gradients = torch.autograd.grad((hidden.square() * scale).sum(), outputs)
    assert [o.grad_norm for o in found] == pytest.approx([reference(g) for g in gradients], rel=1e-5)
    assert [o.elements for o in found] == [g.numel() for g in gradients]


def test_derivatives_and_weights_of_a_perceptron_are_those_of_float64() -> None:
    model, x = deep(), normal(5, 6)
    found = operations(model, lambda: model(x).square().sum().backward())
    z = x.double().numpy()
    expected = []
    slopes = (lambda z: 1 - np.tanh(z) ** 2, lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2, lambda z: (z > 0) * 1.0)
    functions = (np.tanh, lambda z: 1 / (1 + np.exp(-z)), lambda z: np.maximum(z, 0))
    for layer, function, slope in zip(model[::2], functions, slopes):
        z = z @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        expected.append(slope(z))
        z = function(z)
    for operation, slope in zip(found[1:5:2], expected):
        assert operation.derivative is not None
        assert operation.derivative.mean_square == pytest.approx(float((slope**2).mean()), rel=1e-4)
        assert operation.derivative.elements == slope.size
        assert operation.derivative.zero == 0
    relu = found[5].derivative  # where its output is 0 so is the loss's gradient: there it is not known
    assert relu is not None
    assert (relu.zero, relu.elements) == (0, int(expected[2].sum()))
    assert relu.mean_square == pytest.approx(1, rel=1e-6)
    weights = [o.weight for o in found[::2]]
    for i, weight in zip((0, 2, 4), weights):
        matrix = model[i].weight
        assert weight is not None
        assert weight.norm == pytest.approx(reference(matrix), rel=1e-6)
        assert (weight.name, weight.fan_in, weight.fan_out) == (f"{i}.weight", matrix.shape[1], matrix.shape[0])


def test_shares_that_are_zero_and_small_are_counted() -> None:
    model = nn.Sequential(nn.Identity(), nn.Sigmoid())
    x = torch.tensor([0.0, 1.0, 6.0, -6.0, 200.0]).requires_grad_()
    [_, sigmoid] = operations(model, lambda: model(x).sum().backward())
    derivative = sigmoid.derivative
    assert derivative is not None
    assert (derivative.zero, derivative.small) == (pytest.approx(1 / 5), pytest.approx(3 / 5))


class Skip(nn.Module):
    """x + f(x), and the gradient of each way."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.fc(x))


def test_what_each_way_sends_is_told_apart() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Skip())
    x, gradient = normal(3, 4), normal(3, 4, seed=1)
    found = operations(model, lambda: model(x).backward(gradient))
    first, fc, _tanh, add = found
    slope = 1 - torch.tanh(model[1].fc(model[0](x))).square()
    branch = (gradient * slope) @ model[1].fc.weight
    assert names(found) == ["Addmm", "Addmm", "Tanh", "Add"]
    assert add.inputs == ((0, 0), (2, 0))
    assert add.sent[0] == pytest.approx(reference(gradient), rel=1e-5)
    assert math.isnan(add.sent[1])
    assert fc.sent[fc.inputs.index((0, 0))] == pytest.approx(reference(branch), rel=1e-5)
    assert first.grad_norm == pytest.approx(reference(gradient + branch), rel=1e-5)


def test_an_input_that_has_a_gradient_is_the_deepest() -> None:
    model, x = nn.Linear(3, 2), normal(4, 3).requires_grad_()
    leaf, addmm = operations(model, lambda: model(x).sum().backward())
    assert (leaf.kind, leaf.inputs, addmm.inputs[1]) == ("leaf", (), (0, 0))
    assert leaf.grad_norm == pytest.approx(reference(x.grad), rel=1e-6)


def test_an_output_that_is_used_inside_too_has_several_consumers() -> None:
    """Else what the one inside sends would seem to be all that arrives."""

    class TwoOutputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.body(x)
            return self.head(hidden), hidden

    model, x = TwoOutputs(), normal(4, 3)

    def step() -> None:
        head, hidden = model(x)
        (head.sum() + 5 * hidden.square().sum()).backward()

    body, head = operations(model, step)
    assert head.sent[1] == pytest.approx(reference(model.head.weight) * 2, rel=1e-5)
    assert body.grad_norm > 2 * head.sent[1]


def test_what_is_seen_of_every_operation_is_what_torch_sees_of_every_output() -> None:
    """Of a transformer: the gradient of the output of each module that makes one of its own."""
    example = build("gpt")
    found = operations(example.model, lambda: backward(example))
    outputs: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            output.retain_grad()
            outputs[name] = output

    again = build("gpt")
    handles = [m.register_forward_hook(partial(keep, n)) for n, m in again.model.named_modules() if n]
    backward(again)
    [handle.remove() for handle in handles]
    for name, output in outputs.items():
        own = [o for o in found if o.module == name]
        if own:
            assert own[-1].grad_norm == pytest.approx(reference(output.grad), rel=1e-5), name
    assert len(outputs) > 15


def test_gradients_that_are_not_finite_stay_so() -> None:
    model = deep()
    found = operations(model, lambda: (model(normal(5, 6)).sum() * NAN).backward())
    assert all(math.isnan(o.grad_norm) and o.derivative is None for o in found)


def test_gradients_of_zero_are_zero_and_tell_no_derivative() -> None:
    model = deep()
    found = operations(model, lambda: (model(normal(5, 6)).sum() * 0).backward())
    assert all(o.grad_norm == 0 and o.derivative is None and o.calls == 1 for o in found)


def test_an_output_that_no_loss_reaches_is_unseen() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"a": self.a(x), "b": self.b(x)}

    model = TwoHeads()
    a, b = operations(model, lambda: model(normal(3, 2))["a"].sum().backward())
    assert (a.calls, b.calls, math.isnan(b.grad_norm)) == (1, 0, True)


# Programs


class InPlace(nn.Module):
    """All that full backward hooks do not survive."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.a(x))
        out = self.b(x)
        out += x
        y = 2 * F.relu_(out)
        y[:, 0] = 0.5 * y[:, 1]
        return y


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(normal(4, 4)), nn.Parameter(normal(4, 4, seed=1))

    def forward(self, *, x: Tensor) -> Tensor:
        return F.gelu(torch.tanh(x @ self.a) * 0.5) @ self.b


@dataclass
class Output:
    logits: Tensor
    hidden: list[Tensor]


class WithDataclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Output:
        hidden = torch.tanh(self.a(x))
        return Output(self.b(hidden), [hidden])


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(Double.apply(self.fc(x)))


class FrozenBody(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.body(x)
        return self.head(x)


class LSTMLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for _ in range(4):
            state = self.cell(x, state)
        assert state is not None
        return state[0]


class Penalised(nn.Module):
    """A gradient within the loss, of which the backward pass takes the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def plain(model: nn.Module, x: Tensor) -> None:
    model(x).square().sum().backward()


def by_keyword(model: nn.Module, x: Tensor) -> None:
    model(x=x).square().sum().backward()


def of_dataclass(model: nn.Module, x: Tensor) -> None:
    output = model(x)
    (output.logits.sum() + output.hidden[0].square().sum()).backward()


def penalised(model: nn.Module, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    output = model(x)
    (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    (output.sum() + gradient.square().sum()).backward()


def twice(model: nn.Module, x: Tensor) -> None:
    loss = model(x).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()


def in_bfloat16(model: nn.Module, x: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).square().sum()
    loss.backward()


def checkpointed(reentrant: bool, model: nn.Module, x: Tensor) -> None:
    checkpoint(model, x.clone().requires_grad_(), use_reentrant=reentrant).square().sum().backward()


def accumulated(model: nn.Module, x: Tensor) -> None:
    for part in x.split(2):
        model(part).square().sum().backward()


def of_sequences(model: nn.Module, x: Tensor) -> None:
    out = model(x[:, None].expand(-1, 5, -1))
    out.square().sum().backward()


PROGRAMS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], None]]] = {
    "in place": (InPlace, plain),
    "functional, by keyword": (Functional, by_keyword),
    "dataclass": (WithDataclass, of_dataclass),
    "own function": (OwnFunction, plain),
    "frozen body": (FrozenBody, plain),
    "frozen first layer": (lambda: nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2)), plain),
    "double backward": (Penalised, penalised),
    "retain_graph": (Penalised, twice),
    "autocast": (Penalised, in_bfloat16),
    "checkpoint": (Penalised, partial(checkpointed, False)),
    "reentrant checkpoint": (Penalised, partial(checkpointed, True)),
    "accumulation": (Penalised, accumulated),
    "RNN": (lambda: LastStep(nn.RNN(4, 6, batch_first=True)), of_sequences),
    "two-layer GRU": (lambda: LastStep(nn.GRU(4, 6, 2, batch_first=True)), of_sequences),
    "LSTM": (lambda: LastStep(nn.LSTM(4, 6, batch_first=True)), of_sequences),
    "LSTMCell": (LSTMLoop, plain),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), of_sequences),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)), plain),
}  # fmt: skip


NAMES = [name for name in (*GALLERY, *PROGRAMS) if name != "script_module"]


def dense(gradient: Tensor) -> Tensor:
    return (gradient.to_dense() if gradient.is_sparse else gradient).resolve_conj()


def left_behind(name: str, watching: bool, nonfinite: bool) -> tuple[Any, nn.Module, Probe]:
    """All that a step leaves: gradients, buffers, random state, attributes and hooks."""
    torch.manual_seed(0)
    if name in GALLERY:
        example = build(name)
    else:
        make, step = PROGRAMS[name]
        example = Example(make(), (normal(6, 4),))
    microscope = Probe(example.model, nonfinite=nonfinite)
    torch.manual_seed(1)
    if watching:
        microscope.arm()
    backward(example) if name in GALLERY else step(example.model, *example.inputs)
    microscope.take()
    model = example.model
    state = {
        "gradients": {n: p.grad if p.grad is None else printed(dense(p.grad)) for n, p in model.named_parameters()},
        "buffers": printed(dict(model.named_buffers())),
        "random": printed(torch.get_rng_state()),
        "attributes": {n: sorted(vars(module)) for n, module in model.named_modules()},
        "hooks": {n: hook_counts(module) for n, module in model.named_modules()},
    }
    return state, model, microscope


@pytest.mark.parametrize("nonfinite", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_training_does_not_notice(name: str, nonfinite: bool) -> None:
    watched, _, microscope = left_behind(name, watching=True, nonfinite=nonfinite)
    alone, _, unarmed = left_behind(name, watching=False, nonfinite=nonfinite)
    assert watched == alone
    assert unarmed.operations == ()
    seen = [o for o in microscope.operations if o.calls]
    assert all(math.isfinite(o.grad_norm) for o in seen)
    assert seen


@pytest.mark.parametrize("name", NAMES)
def test_looking_for_what_is_not_finite_changes_no_number(name: str) -> None:
    *_, plainly = left_behind(name, watching=True, nonfinite=False)
    *_, closely = left_behind(name, watching=True, nonfinite=True)
    assert names(plainly.operations) == names(closely.operations)
    for a, b in zip(plainly.operations, closely.operations):
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=2e-3, nan_ok=True)
        assert (a.inputs, a.calls, a.elements) == (b.inputs, b.calls, b.elements)
        for sent, all_sent in zip(a.sent, b.sent):
            assert math.isnan(sent) or sent == pytest.approx(all_sent, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_arrives_is_what_is_sent(name: str) -> None:
    """Where one operation takes all that another makes."""
    *_, microscope = left_behind(name, watching=True, nonfinite=True)
    found = microscope.operations
    consumers: dict[int, list[tuple[Operation, int]]] = {}
    for operation in found:
        for slot, given in enumerate(operation.inputs):
            if given is not None:
                consumers.setdefault(given[0], []).append((operation, slot))
    for place, users in consumers.items():
        [(user, slot), *more] = users
        if not more and user.calls == found[place].calls == 1 and found[place].grad_norm <= user.sent[slot] * 1.001:
            assert found[place].grad_norm == pytest.approx(user.sent[slot], rel=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_each_operation_comes_after_its_inputs(name: str) -> None:
    *_, microscope = left_behind(name, watching=True, nonfinite=False)
    for place, operation in enumerate(microscope.operations):
        assert operation.index == place
        assert len(operation.sent) == len(operation.inputs)
        assert all(given is None or given[0] < place for given in operation.inputs)


SEEN: dict[str, list[str]] = {
    "in place": ["Addmm", "Relu", "Addmm", "Add", "Relu", "Mul", "Mul"],
    "functional, by keyword": ["Mm", "Tanh", "Mul", "Gelu", "Mm"],
    "dataclass": ["Addmm", "Tanh", "Addmm"],
    "own function": ["Addmm", "Double", "Tanh"],
    "frozen body": ["Addmm"],
    "frozen first layer": ["Addmm"],
    "checkpoint": ["AccumulateGrad", "Addmm", "Tanh", "Addmm"],
    "reentrant checkpoint": ["AccumulateGrad", "Addmm", "Tanh", "Addmm"],
    "accumulation": ["Addmm", "Tanh", "Addmm"],
    "retain_graph": ["Addmm", "Tanh", "Addmm"],
    "double backward": ["AccumulateGrad", "Addmm", "Tanh", "Addmm"],
    "weight_norm": ["Addmm", "Tanh", "Addmm"],
    "old_spectral_norm": ["Addmm", "Tanh", "Addmm"],
    "data_parallel": ["Addmm", "Relu", "Addmm"],
    "lazy_layers": ["Addmm", "Relu", "Addmm"],
    "shared_module": ["Addmm", "Tanh", "Addmm", "Addmm"],
    "checkpointed": ["Addmm", "Tanh", "Tanh", "Addmm", "Tanh", "Addmm"],
}


@pytest.mark.parametrize("name", SEEN)
def test_the_data_path_is_seen_and_nothing_else(name: str) -> None:
    *_, microscope = left_behind(name, watching=True, nonfinite=False)
    found = [o.name for o in microscope.operations if o.kind != "shape"]
    assert found == SEEN[name]


def test_autocast_is_measured_in_float32() -> None:
    *_, microscope = left_behind("autocast", watching=True, nonfinite=False)
    weights = [o.weight.name for o in microscope.operations if o.weight is not None]
    assert weights == ["net.0.weight", "net.2.weight"]


def test_a_wrapper_does_not_show_in_names() -> None:
    *_, microscope = left_behind("data_parallel", watching=True, nonfinite=False)
    assert [o.module for o in microscope.operations] == ["0", "1", "2"]


def test_a_module_that_is_called_again_is_counted() -> None:
    model = CellLoop()
    found = operations(model, lambda: model(normal(2, 5, 3)).sum().backward())
    assert [o.call for o in found if o.name == "Tanh"] == [0, 1, 2, 3, 4]
    assert {(o.module, o.module_kind) for o in found} == {("cell", "RNNCell")}


# Notes


def notes(model: nn.Module, step: Step) -> tuple[str, ...]:
    microscope = Probe(model)
    microscope.arm()
    step()
    profile = microscope.take()
    assert profile is not None
    return profile.notes


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no fused kernel")
def test_a_fused_recurrent_layer_is_one_operation_and_says_so() -> None:
    model = LastStep(nn.LSTM(3, 6, batch_first=True))
    [note] = notes(model, lambda: model(normal(2, 5, 3)).sum().backward())
    assert note.startswith("rnn: a fused kernel runs all time steps at once")
    assert names(operations(model, lambda: model(normal(2, 5, 3)).sum().backward()))[0] == "MkldnnRnnLayer"
    with torch.backends.mkldnn.flags(enabled=False):
        assert notes(model, lambda: model(normal(2, 5, 3)).sum().backward()) == ()


def test_several_passes_through_one_graph_are_told() -> None:
    model = nn.Linear(3, 2)
    [note] = notes(model, lambda: twice(model, normal(4, 3)))
    assert "2 times" in note


def test_a_compiled_model_is_one_operation_and_says_so() -> None:
    torch._dynamo.reset()
    model = deep()
    compiled = torch.compile(model, backend="aot_eager")
    [note] = notes(compiled, lambda: compiled(normal(5, 6)).sum().backward())
    assert note.startswith("Sequential: compiled code")
    assert hooks_on(model) == 0


def test_a_model_compiled_in_place_is_not_seen_and_says_so() -> None:
    torch._dynamo.reset()
    model = deep()
    model.compile(backend="aot_eager")
    assert notes(model, lambda: model(normal(5, 6)).sum().backward()) == (COMPILED,)


def test_a_scripted_model_is_not_seen_and_says_so() -> None:
    example = build("script_module")
    assert notes(example.model, lambda: backward(example)) == (COMPILED,)


def test_a_model_called_in_compiled_code_is_compiled_once() -> None:
    torch._dynamo.reset()
    model, compiled = deep(), []

    def count(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph

    loss = torch.compile(lambda x: model(x).sum(), backend=count, fullgraph=True)
    microscope = Probe(model)
    loss(normal(5, 6)).backward()
    microscope.arm()
    loss(normal(5, 6)).backward()
    assert microscope.take() is None or microscope.operations
    loss(normal(5, 6)).backward()
    assert len(compiled) == 1


# The object


def test_what_is_not_called_or_not_gone_back_through_gives_none() -> None:
    model = deep()
    microscope = Probe(model)
    assert microscope.take() is None
    microscope.arm()
    assert microscope.take() is None
    microscope.arm()
    model(normal(5, 6))
    assert microscope.take() is None
    assert hooks_on(model) == 0


def test_it_can_be_armed_again() -> None:
    model = deep()
    microscope = Probe(model)
    for _ in range(3):
        microscope.arm()
        model(normal(5, 6)).sum().backward()
        assert microscope.take() is not None
        assert len(microscope.operations) == 6
    microscope.arm()
    microscope.arm()
    model(normal(5, 6)).sum().backward()
    assert {o.calls for o in (microscope.take(), microscope.operations)[1]} == {1}


def test_a_model_that_is_gone_gives_none() -> None:
    microscope = Probe(deep())
    gc.collect()
    microscope.arm()
    assert microscope.take() is None


def test_hooks_go_with_the_probe() -> None:
    model = deep()
    microscope = Probe(model)
    microscope.arm()
    microscope.close()
    microscope.close()
    assert hooks_on(model) == 0
    microscope.arm()
    assert hooks_on(model) > 0
    del microscope
    gc.collect()
    assert hooks_on(model) == 0


@pytest.mark.parametrize("name", ["mlp", "gpt", "rnn_cell_loop", "checkpointed", "in place", "double backward"])
def test_nothing_outlives_the_step(name: str) -> None:
    _, model, microscope = left_behind(name, watching=True, nonfinite=False)
    references = [weakref.ref(thing) for thing in (model, *model.modules(), *model.parameters())]
    del model
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []
    assert microscope.operations


def test_tensors_do_not_add_up() -> None:
    model = deep()
    microscope = Probe(model)

    def tensors() -> Iterator[int]:
        for _ in range(3):
            microscope.arm()
            model(normal(5, 6)).sum().backward()
            microscope.take()
            model.zero_grad()
            gc.collect()
            yield sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    first, *more = tensors()
    assert more == [first, first]


def test_the_block_gives_a_profile() -> None:
    model = deep()
    with probe(model) as profile:
        assert profile == BackwardProfile() or profile.segments == ()
        model(normal(5, 6)).square().sum().backward()
    microscope = Probe(model)
    microscope.arm()
    model(normal(5, 6)).square().sum().backward()
    expected = microscope.take()
    assert expected is not None
    assert vars(profile) == vars(expected)
    assert hooks_on(model) == 0


def test_a_block_without_a_backward_pass_says_so() -> None:
    model = deep()
    with probe(model) as profile:
        model(normal(5, 6))
    assert profile.notes == (NO_GRADIENT,)
    assert profile.segments == ()


def test_a_block_that_raises_leaves_no_hook() -> None:
    model = deep()

    def failing() -> None:
        with probe(model):
            model(normal(5, 6))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert hooks_on(model) == 0


@pytest.mark.parametrize("model", [None, "model", torch.tanh])
def test_what_is_no_module_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got (NoneType|str|builtin)"), probe(model):
        pass
