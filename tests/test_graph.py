"""What is told from the autograd graph: the order, what is data and what a weight, and how large the weights are."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

from gradwatch.graph import Graph, tensors_in
from gradwatch.profile import Weight
from gradwatch.torch_internals import can_number, next_number, number_of
from tests.tensors import normal


@dataclass
class Output:
    loss: Tensor
    hidden: Any = None


class ModelOutput(OrderedDict[str, Any]):
    """As those of transformers, a dict whose keys are attributes too."""


Pair = namedtuple("Pair", ["first", "second"])
A, B = torch.tensor(1.0), torch.tensor(2.0)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (A, [A]),
        ((A, None, [B, "text"]), [A, B]),
        ({"a": A, "b": {"c": (B,)}}, [A, B]),
        (Output(A, (B, 3)), [A, B]),
        (ModelOutput(loss=A, hidden=Output(B)), [A, B]),
        (Pair(A, B), [A, B]),
        (torch.distributions.Normal(A, B, validate_args=False), [A, B]),
        (None, []),
        (nn.Linear(2, 2), []),
        ("text", []),
    ],
    ids=["tensor", "nested", "dict", "dataclass", "model output", "namedtuple", "object", "None", "module", "text"],
)
def test_tensors_are_found_in_whatever_a_module_gives(output: object, expected: list[Tensor]) -> None:
    assert [id(t) for t in tensors_in(output)] == [id(t) for t in expected]


def test_what_contains_itself_is_searched_to_an_end() -> None:
    loop: list[Any] = [A]
    loop.append(loop)
    assert {id(t) for t in tensors_in(loop)} == {id(A)}


def test_objects_that_refer_back_are_gone_through_once() -> None:
    class Box:
        looked_at = 0

        def __init__(self, owner: list[Box]) -> None:
            self.owner, self.tensor = owner, A

        def __getattribute__(self, name: str) -> Any:
            Box.looked_at += name == "__dict__"
            return super().__getattribute__(name)

    boxes: list[Box] = []
    boxes.extend(Box(boxes) for _ in range(300))
    Box.looked_at = 0
    assert len(list(tensors_in(boxes))) == 300
    assert Box.looked_at == 300


def graph_of(model: nn.Module, *inputs: Tensor) -> Graph:
    graph = Graph({id(p): name for name, p in model.named_parameters()})
    since = next_number()
    graph.add(tensors_in(model(*inputs)), since)
    return graph


def data(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes if node.data]


def test_this_torch_numbers_its_operations() -> None:
    x = torch.ones(1, requires_grad=True)
    assert can_number()
    before = next_number()
    y = x * 2
    assert number_of(y.grad_fn) == before == next_number() - 1


def test_each_node_comes_after_its_inputs() -> None:
    graph = graph_of(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.ones(5, 3))
    for place, node in enumerate(graph.nodes):
        assert all(given is None or given[0] < place for given in node.inputs)
    assert data(graph) == ["Addmm", "Tanh", "Addmm"]


layers, ROWS = nn.Sequential, torch.ones(2, 4)

DATA: dict[str, tuple[Callable[[], nn.Module], Tensor, list[str]]] = {
    "a norm first": (lambda: layers(nn.LayerNorm(4), nn.Linear(4, 1)), ROWS, ["NativeLayerNorm", "Addmm"]),
    "a convolution first": (lambda: nn.Conv1d(4, 2, 1), torch.ones(2, 4, 3), ["Convolution"]),
    "an embedding first": (lambda: nn.Embedding(4, 2), torch.ones(2, dtype=torch.long), ["Embedding"]),
    "weight_norm": (lambda: parametrizations.weight_norm(nn.Linear(4, 2)), torch.ones(2, 4), ["Addmm"]),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(4, 2)), torch.ones(2, 4), ["Addmm"]),
    "an input with a gradient": (lambda: nn.Linear(4, 2), ROWS.clone().requires_grad_(), ["AccumulateGrad", "Addmm"]),
    "what was before": (lambda: nn.Linear(4, 2), torch.ones(2, 4, requires_grad=True) * 2, ["Addmm"]),
    "a frozen layer": (lambda: layers(nn.Linear(4, 4), nn.Linear(4, 2).requires_grad_(False)), ROWS, ["Addmm"] * 2),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA)
def test_what_depends_on_the_input_is_data(case: str) -> None:
    build, x, expected = DATA[case]
    graph = graph_of(build(), x)
    assert data(graph) == expected


def test_what_a_module_gave_out_is_data_though_it_is_made_of_parameters() -> None:
    scale, x = nn.Parameter(torch.ones(4)), torch.ones(2, 4)
    since = next_number()
    y = scale * x
    graph = Graph({id(scale): "scale"})
    graph.outputs.add(number_of(y.grad_fn))
    graph.add([torch.tanh(y)], since)
    assert data(graph) == ["Mul", "Tanh"]


def test_a_second_output_adds_what_is_new() -> None:
    model = nn.Linear(3, 3)
    since = next_number()
    first = torch.tanh(model(torch.ones(2, 3)))
    graph = Graph({})
    assert len(graph.add([first], since)) == len(graph.nodes)
    known = len(graph.nodes)
    added = graph.add([torch.sin(first)], since)
    assert [graph.nodes[place].name for _, place in added] == ["Sin"]
    assert graph.nodes[known].inputs == ((known - 1, 0),)
    assert graph.nodes[known - 1].consumers == 2  # as an output, and of Sin
    assert graph.add([first], since) == []


class Product(nn.Module):
    """A parameter, and what it is multiplied with."""

    def __init__(self, shape: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(*shape))
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x, self.weight)


WEIGHTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(6, 9), (4, 6)),
    "Linear of sequences": (lambda: nn.Linear(6, 9, bias=False), (4, 5, 6)),
    "x @ W": (lambda: Product((6, 9), torch.matmul), (4, 6)),
    "x @ W.T": (lambda: Product((9, 6), lambda x, w: x @ w.T), (4, 6)),
    "W @ x": (lambda: Product((9, 6), lambda x, w: w @ x), (6, 4)),
    "W.T @ x": (lambda: Product((6, 9), lambda x, w: w.T @ x), (6, 4)),
    "batched x @ W": (lambda: Product((3, 6, 9), torch.bmm), (3, 4, 6)),
    "as GPT-2": (lambda: Product((6, 9), lambda x, w: torch.addmm(torch.zeros(9), x, w)), (4, 6)),
    "Conv1d": (lambda: nn.Conv1d(6, 9, 3, padding=1, padding_mode="circular"), (4, 6, 8)),
    "Conv2d, grouped": (lambda: nn.Conv2d(6, 9, 3, groups=3, padding=1, padding_mode="circular"), (4, 6, 8, 8)),
    "Conv2d, stride": (lambda: nn.Conv2d(6, 9, 2, stride=2), (4, 6, 8, 8)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(6, 9, 2, stride=2), (4, 6, 5, 5)),
    "ConvTranspose1d, grouped": (lambda: nn.ConvTranspose1d(6, 9, 3, stride=3, groups=3), (4, 6, 5)),
}


def weight_of(model: nn.Module, x: Tensor) -> Weight:
    [node] = [node for node in graph_of(model, x).nodes if node.weight is not None]
    assert node.weight is not None
    assert node.kind == "weight"
    parameter = model.get_parameter(node.weight.name)
    assert node.weight_norm == pytest.approx(float(parameter.detach().double().norm()), rel=1e-6)
    return node.weight


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_gradient_at_random_gains_what_the_weight_says(case: str) -> None:
    """|W|^2 / outputs is the mean squared gain over random gradients, here of 400 of them."""
    torch.manual_seed(0)
    build, shape = WEIGHTS[case]
    model, x = build(), torch.randn(shape).requires_grad_()
    weight = weight_of(model, x)
    output, gains = model(x), []
    for _ in range(400):
        gradient = torch.randn_like(output)
        (sent,) = torch.autograd.grad(output, x, gradient, retain_graph=True)
        gains.append(float(sent.double().square().sum() / gradient.double().square().sum()))
    size = float(model.get_parameter(weight.name).detach().norm())
    assert size**2 / weight.outputs == pytest.approx(sum(gains) / len(gains), rel=0.05)


@pytest.mark.parametrize("case", [case for case in WEIGHTS if case.startswith(("Linear", "Conv"))])
def test_fans_are_those_of_torch(case: str) -> None:
    build, shape = WEIGHTS[case]
    model = build()
    weight = weight_of(model, torch.randn(shape))
    fans = nn.init._calculate_fan_in_and_fan_out(model.get_parameter(weight.name))
    assert (weight.fan_in, weight.fan_out) == fans


@pytest.mark.parametrize("case", [case for case in WEIGHTS if "@" in case or case == "as GPT-2"])
def test_fans_of_a_matrix_are_what_goes_in_and_out(case: str) -> None:
    build, shape = WEIGHTS[case]
    weight = weight_of(build(), torch.randn(shape).requires_grad_())
    assert (weight.fan_in, weight.fan_out) == (6, 9)


def test_a_product_of_data_is_no_weight() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.q(x) @ self.k(x).T

    graph = graph_of(Scores(), torch.ones(2, 3))
    assert graph.nodes[-1].kind == "multiply"
    assert graph.nodes[-1].weight is None


def test_a_weight_that_is_computed_has_no_parameter_of_its_own() -> None:
    model = parametrizations.weight_norm(nn.Linear(4, 2))
    assert [node.weight for node in graph_of(model, torch.ones(2, 4)).nodes if node.kind == "weight"] == [None]


def test_the_graph_is_freed_while_it_is_remembered() -> None:
    gc.collect()
    gc.disable()
    try:
        model = nn.Linear(3, 4)
        hidden = F.relu(model(torch.ones(2, 3)))
        output = torch.sin(hidden)
        graph = Graph({})
        graph.add([output], 0)
        reference = weakref.ref(hidden)
        del hidden
        assert reference() is not None  # the graph needs it
        del output
        assert reference() is None
        assert len(graph.nodes) == 6
    finally:
        gc.enable()


def test_parameters_that_are_none_of_the_models_are_strangers() -> None:
    """Not other tensors that require a gradient; and they are held by nobody."""
    model, hidden, x = nn.Linear(4, 1), nn.Linear(3, 4), torch.ones(2, 3, requires_grad=True)
    graph = Graph({id(p): name for name, p in model.named_parameters()})
    graph.add([model(hidden(x).relu())], since=0)
    assert {id(found.parameter()) for found in graph.strangers.values()} == {id(p) for p in hidden.parameters()}
    del hidden
    gc.collect()
    assert {(found.parameter(), found.numel) for found in graph.strangers.values()} == {(None, 4), (None, 12)}
