"""Norms of every kind of tensor that can be a parameter or a gradient."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations, parametrize

import gradwatch as gw
from gradwatch import stats
from gradwatch.histograms import element_stats
from gradwatch.tags import HISTOGRAM_EDGES
from tests.matrix.reference import assert_norms, latest_norms, norms_now
from tests.matrix.table import Group
from tests.models import Example, Unmaterialised, as_float64, backward, build, layer_norms, layer_of
from tests.tensors import INF, NAN, normal, reference, sparse

cell = Group("Tensors")

WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}

TRAINED = {
    "sparse_embedding": "sparse gradients, not coalesced",
    "complex_parameters": "complex parameters beside real ones",
    "conjugated_gradient": "complex gradients that are conjugated views",
    "conv_channels_last": "gradients that are not contiguous: channels_last",
    "zero_element_parameter": "a parameter without elements",
    "scalar_parameter": "a parameter without dimensions",
    "gpt": "tied weights",
    "shared_module": "a module used at two places",
    "frozen_layers": "frozen layers",
    "unused_head": "a layer that the loss does not reach",
    "lazy_layers": "lazily initialised layers, watched before they are",
    "weight_norm": "weight_norm",
    "spectral_norm": "spectral_norm",
    "old_weight_norm": "the old weight_norm",
    "old_spectral_norm": "the old spectral_norm",
    "checkpointed": "checkpointed activations",
    "checkpointed_reentrant": "checkpointed activations, reentrant",
    "script_module": "a ScriptModule",
    "data_parallel": "DataParallel",
    "averaged_model": "AveragedModel",
    "lstm": "several parameters in one module",
}
"""Models of the gallery that can be trained in float64 as well, and what they are in the table."""

WITHIN = 1e-5


def rows(cases: dict[str, str], within: float | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A row of the table for each case of a test with many."""

    def noted(test: Callable[..., None]) -> Callable[..., None]:
        for case in cases.values():
            cell(case, within=within)(test)
        return test

    return noted


def in_float64(name: str) -> Example:
    """The model of that name and its inputs, with the same numbers."""
    example = build(name)
    if any(is_lazy(p) for p in example.model.parameters()):
        torch.manual_seed(1)
        example.model(*example.inputs)
    for tensor in (*example.model.parameters(), *example.model.buffers()):
        tensor.data = tensor.data.to(WIDE.get(tensor.dtype, tensor.dtype))
    return example._replace(inputs=tuple(x.to(WIDE.get(x.dtype, x.dtype)) for x in example.inputs))


def expected(example: Example) -> dict[str, float]:
    """The float64 norm of each layer, without those that have no element."""
    full = {layer_of(name, example) for name, p in example.model.named_parameters() if p.numel()}
    return {layer: norm for layer, norm in layer_norms(example).items() if layer in full}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05)


def watch(model: nn.Module, optimizer: torch.optim.Optimizer, **arguments: object) -> gw.Monitor:
    return gw.watch(model, optimizer, **{"sinks": (), "strict": True, "histogram_every_n_steps": 1, **arguments})


def measured(model: nn.Module, **arguments: object) -> gw.Monitor:
    """A monitor that has measured the gradients which ``model`` has now."""
    monitor = gw.Monitor(model, **{"sinks": (), "strict": True, "histogram_every_n_steps": 1, **arguments})
    monitor.step()
    return monitor


@rows(TRAINED, within=WITHIN)
@pytest.mark.parametrize("name", TRAINED)
def test_the_same_training_in_float64(name: str) -> None:
    example, twin = build(name), in_float64(name)
    optimizer, twins = sgd(example.model), sgd(twin.model)
    with watch(example.model, optimizer) as monitor:
        torch.manual_seed(1)
        for _ in range(3):
            for each, its in ((example, optimizer), (twin, twins)):
                its.zero_grad()
                backward(each)
                if each is example:
                    used = expected(example)
                its.step()
            assert_norms(monitor, used)
            assert_norms(monitor, expected(twin), WITHIN)
    assert len(monitor.history) == 3


APART = {
    "float8_parameter": "float8 parameters",
    "mixed_dtypes": "float16, bfloat16, float32 and float64 parameters in one model",
    "quantised_body": "a dynamically quantised body under a head",
    "quantisation_aware": "quantisation-aware training",
}
"""Models that are not themselves in float64: the reference is the float64 norm of what the backward left."""


@rows(APART, within=1e-6)
@pytest.mark.parametrize("name", APART)
def test_the_gradients_that_the_backward_left(name: str) -> None:
    example = build(name)
    for _ in range(2):
        example.model.zero_grad()
        backward(example)
        assert_norms(measured(example.model), expected(example))


@cell("a float8 gradient whose squares float8 cannot hold", within=1e-6)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_by_hand(dtype: torch.dtype) -> None:
    model = nn.Module()
    model.p = nn.Parameter(torch.zeros(9).to(dtype))
    model.p.grad = torch.full((9,), 448.0).to(dtype)
    norm = 3 * float(model.p.grad[0].float())
    monitor = measured(model, granularity="parameter", clip=gw.clipping.GlobalNorm(norm / 2))
    assert latest_norms(monitor) == {"p": pytest.approx(norm, rel=1e-6)}
    assert model.p.grad.float().tolist() == [norm / 6] * 9


# -- scale -----------------------------------------------------------------------------------------------------------


@cell("squares that overflow float32 while the gradient is finite", within=WITHIN)
@cell("squares that underflow float32 while the gradient is not zero", within=WITHIN)
@pytest.mark.parametrize("size", [4, 700], ids=["short", "long"])
@pytest.mark.parametrize("scale", [1e37, 1e20, 1e-21, 1e-30])
def test_squares_beyond_float32(scale: float, size: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 2))
    twin = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    twin.load_state_dict(model.state_dict())
    x = torch.randn(5, size)
    backward(Example(model, (x,)), scale)
    backward(Example(twin, (x.double(),)), scale)
    truth = expected(Example(twin, ()))
    monitor = measured(model)
    assert_norms(monitor, truth, WITHIN)
    assert monitor.alerts == []
    assert monitor.history.latest is not None
    assert monitor.history.latest.nonfinite.tolist() == [0, 0]
    assert monitor.history.latest.zero_fraction.tolist() == [0, 0]


@cell("layers at opposite ends of float32 in one model", within=1e-6)
def test_scales_side_by_side() -> None:
    model = nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in ("least", "small", "usual", "huge")})
    scales = {"least": 1e-45, "small": 1e-30, "usual": 1.0, "huge": 1e30}
    for name, scale in scales.items():
        model[name].weight.grad = torch.full((3, 3), scale)
    monitor = measured(model)
    truth = {name: 3 * float(torch.tensor(scale)) for name, scale in scales.items()}
    assert_norms(monitor, truth)


@pytest.fixture
def many() -> Tensor:
    """More elements than an int32 counts, all but three of them zero: pages that nobody writes take no memory."""
    try:
        elements = torch.from_numpy(np.zeros((1 << 31) + 5, np.float32))
    except MemoryError:
        pytest.skip("this machine does not hand out 8 GB of address space")
    elements[0], elements[1 << 31], elements[-1] = 3.0, -4.0, 12.0
    return elements


@cell("more than 2**31 elements", within=1e-6)
def test_more_elements_than_an_int32_counts(many: Tensor) -> None:
    assert stats.measure([many]).norms.tolist() == pytest.approx([13.0], rel=1e-6)


@cell("histogram, zeros and largest element of more than 2**31 elements")
@pytest.mark.slow
def test_more_elements_than_an_int32_counts_one_by_one(many: Tensor) -> None:
    found = element_stats(many)
    assert (found.counts.sum(), found.zeros, found.max_abs) == (3, (1 << 31) + 2, 12.0)
    assert found.numel == len(many)


# -- models that change while they train -----------------------------------------------------------------------------


class Changing:
    """An MLP under watch; each step is held against the float64 norms of what its optimizer was about to use."""

    def __init__(self) -> None:
        example = build("mlp")
        self.model, self.inputs = example.model, example.inputs
        self.optimizer = sgd(self.model)
        self.monitor = watch(self.model, self.optimizer)

    def step(self, *layers: str) -> None:
        """One step, in which just ``layers`` have a gradient."""
        self.optimizer.zero_grad()
        backward(Example(self.model, self.inputs))
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        for p in self.model.parameters():
            if id(p) not in held:
                p.grad = None
        used = layer_norms(Example(self.model, self.inputs))
        self.optimizer.step()
        assert_norms(self.monitor, used)
        assert tuple(used) == layers


@cell("a layer frozen and unfrozen while training", within=1e-6)
def test_frozen_and_unfrozen() -> None:
    task = Changing()
    task.step("0", "2")
    task.model[0].requires_grad_(False)
    task.step("2")
    task.model[0].requires_grad_(True)
    task.step("0", "2")
    assert task.monitor.history.has_grad.tolist() == [[True, True], [False, True], [True, True]]


@cell("a gradient left over on a layer that was frozen: the optimizer still applies it, so it is measured", within=1e-6)
def test_a_frozen_layer_with_an_old_gradient() -> None:
    task = Changing()
    task.step("0", "2")
    task.optimizer.zero_grad()
    backward(Example(task.model, task.inputs))
    task.model[0].requires_grad_(False)
    before = task.model[0].weight.detach().clone()
    task.optimizer.step()
    assert not torch.equal(before, task.model[0].weight)
    assert_norms(task.monitor, norms_now(task.model))


@cell("a parameter replaced while training", within=1e-6)
@cell("a layer replaced while training", within=1e-6)
@pytest.mark.parametrize("what", ["layer", "parameter"])
def test_replaced(what: str) -> None:
    task = Changing()
    task.step("0", "2")
    if what == "layer":
        task.model[2] = nn.Linear(8, 3)
        new = [*task.model[2].parameters()]
    else:
        task.model[2].weight = nn.Parameter(torch.randn(3, 8))
        new = [task.model[2].weight]
    task.optimizer.add_param_group({"params": new})
    task.step("0", "2")


@cell("a replaced layer that the optimizer does not have: no gradient, as it is not trained")
def test_replaced_behind_the_back_of_the_optimizer() -> None:
    task = Changing()
    task.step("0", "2")
    task.model[2] = nn.Linear(8, 3)
    task.step("0")
    assert task.monitor.history.has_grad.tolist() == [[True, True], [True, False]]


@cell("weights tied while training", within=1e-6)
def test_tied_while_training() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    monitor, inputs = gw.Monitor(model, sinks=(), strict=True), (torch.randn(5, 4),)
    for tied in (False, True):
        if tied:
            model[2].weight = model[0].weight
        model.zero_grad()
        backward(Example(model, inputs))
        monitor.step()
        assert_norms(monitor, norms_now(model))
    assert monitor.layers[1].parameters == ("2.bias",)


@cell("a layer parametrised while training, and no longer", within=1e-6)
def test_parametrised_while_training() -> None:
    task = Changing()
    task.step("0", "2")
    parametrizations.weight_norm(task.model[0])
    task.optimizer.add_param_group({"params": [*task.model[0].parametrizations.parameters()]})
    task.step("0", "2")
    parametrize.remove_parametrizations(task.model[0], "weight")
    task.optimizer.add_param_group({"params": [task.model[0].weight]})
    task.step("0", "2")


@cell("a model cast to float64 while training", within=1e-6)
def test_cast_while_training() -> None:
    task = Changing()
    task.step("0", "2")
    task.model.double()
    task.inputs = tuple(x.double() for x in task.inputs)
    task.step("0", "2")


@cell("layers on the meta device beside others: left out, as they have no numbers, until they are materialised")
def test_meta() -> None:
    torch.manual_seed(0)
    model = Unmaterialised()
    monitor = gw.Monitor(model, sinks=(), strict=True, histogram_every_n_steps=1)

    def step(*layers: str) -> None:
        model.zero_grad()
        backward(Example(model, (torch.randn(5, 4),)))
        monitor.step()
        assert tuple(layer.name for layer in monitor.layers) == layers
        assert_norms(monitor, norms_now(model))

    step("now")
    model.later.to_empty(device="cpu")
    model.later.reset_parameters()
    step("later", "now")


# -- gradients that are not what they seem ---------------------------------------------------------------------------

LAYOUTS = {
    "transposed": lambda: normal(4, 6).t(),
    "every second element": lambda: normal(12, 8)[::2, ::2],
    "one element seen many times": lambda: normal(1, 1).expand(6, 4),
    "with the negative bit": lambda: torch.view_as_complex(normal(6, 4, 2)).conj().imag,
    "that requires a gradient itself": lambda: normal(6, 4).requires_grad_() * 2,
}


@rows({name: f"a gradient {name}" for name in LAYOUTS}, within=1e-6)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    model = nn.Linear(4, 6, bias=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.weight.grad = gradient = LAYOUTS[layout]()
        before = gradient.stride(), gradient.data_ptr()
        monitor = measured(model)
    assert_norms(monitor, {"Linear": reference(gradient)})
    assert model.weight.grad is gradient
    assert (gradient.stride(), gradient.data_ptr()) == before


@cell("create_graph=True: no graph is kept alive", within=WITHIN)
@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_create_graph() -> None:
    class Saved:
        """What the graph keeps in place of a tensor, as long as it lives."""

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor.detach()  # so that it does not keep the graph itself
            alive.add(self)

    alive: weakref.WeakSet[Saved] = weakref.WeakSet()
    example = build("mlp")
    monitor = gw.Monitor(
        example.model, clip=gw.clipping.GlobalNorm(1e9), sinks=(), strict=True, histogram_every_n_steps=1
    )
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        example.model(*example.inputs).square().mean().backward(create_graph=True)
    assert all(p.grad.requires_grad for p in example.model.parameters())
    monitor.step()
    assert_norms(monitor, layer_norms(example))
    assert len(alive) > 0
    example.model.zero_grad()
    gc.collect()
    assert len(alive) == 0


# -- the dearer statistics of sampled steps --------------------------------------------------------------------------

ELEMENTS = torch.tensor([0.0, -0.0, 1.0, -0.5, 0.25, 3.0, 3e-3, -224.0], dtype=torch.float64)
"""All of them, but 3e-3, exact in every dtype."""

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.complex128,
]


@rows(
    {
        str(dtype): f"histogram, zeros, largest element, parameter norm: {dtype}".replace("torch.", "")
        for dtype in DTYPES
    },
    within=1e-6,
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("special", [[], [NAN], [INF, -INF, NAN]], ids=["finite", "a NaN", "inf and NaN"])
def test_sampled_statistics_of_every_dtype(dtype: torch.dtype, special: list[float]) -> None:
    if dtype is torch.float8_e4m3fn:
        special = [NAN for _ in special]  # it has no inf
    gradient = torch.cat([ELEMENTS, torch.tensor(special, dtype=torch.float64)]).to(dtype)
    model = nn.Module()
    model.p = nn.Parameter(torch.full_like(gradient.real if gradient.is_complex() else gradient.float(), 2.0).to(dtype))
    model.p.grad = gradient
    monitor = measured(model)
    found = monitor.history.latest
    parts = as_float64(gradient)
    parts = np.concatenate([parts.real, parts.imag]) if gradient.is_complex() else parts
    finite = np.abs(parts[np.isfinite(parts)])
    assert found.max_abs.tolist() == [224.0]
    assert found.zero_fraction.tolist() == [np.mean(parts == 0)]
    assert found.nonfinite.tolist() == [len(special)]
    assert found.param_norm.tolist() == pytest.approx([2 * len(gradient) ** 0.5], rel=1e-6)
    buckets, _ = np.histogram(np.log10(finite[finite > 0]), HISTOGRAM_EDGES)
    np.testing.assert_array_equal(found.histogram[0], buckets)


@cell("histogram and zeros of a sparse gradient: what it does not store is zero", within=1e-6)
def test_sampled_statistics_of_a_sparse_gradient() -> None:
    model = nn.Embedding(10, 3)
    model.weight.grad = gradient = sparse(1, 4, 1)
    found = measured(model).history.latest
    dense = np.abs(as_float64(gradient))
    assert found.max_abs.tolist() == pytest.approx([dense.max()], rel=1e-6)
    assert found.zero_fraction.tolist() == pytest.approx([0.8])
    assert found.histogram.sum() == np.count_nonzero(dense) == 6


# -- what cannot be seen ---------------------------------------------------------------------------------------------


@cell(
    "gradients taken by torch.autograd.grad or torch.func.grad",
    unknown="they are never in .grad; the layers are recorded as without a gradient, which is not a gradient of zero",
)
@pytest.mark.parametrize("by", ["autograd", "func"])
def test_gradients_that_are_handed_to_the_user_alone(by: str) -> None:
    example = build("mlp")
    monitor = gw.Monitor(example.model, sinks=(), strict=True)
    if by == "autograd":
        found = torch.autograd.grad(example.model(*example.inputs).square().mean(), [*example.model.parameters()])
        assert any(g.abs().sum() > 0 for g in found)
    else:
        parameters = {n: p.detach() for n, p in example.model.named_parameters()}
        loss = lambda ps: torch.func.functional_call(example.model, ps, example.inputs).square().mean()  # noqa: E731
        assert torch.func.grad(loss)(parameters).keys() == parameters.keys()
    monitor.step()
    assert monitor.history.has_grad.tolist() == [[False, False]]
    assert monitor.alerts == []
