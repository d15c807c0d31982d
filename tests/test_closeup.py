"""A close look at one step: values against float64, and training that does not notice."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import timeit
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.utils.checkpoint import checkpoint

from gradwatch import closeup as closeup_module
from gradwatch import saturated_outputs, time_gradient
from gradwatch.closeup import MODULES, Closeup, CloseupStats
from gradwatch.inputs import CALLS, input_shares
from gradwatch.layers import LayerTable
from tests.fingerprint import hook_counts, printed
from tests.tensors import INF, NAN, normal
from tests.test_linear_range import DERIVATIVES

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported:UserWarning")

STEPS, BATCH, SIZE = 20, 3, 4


def closeup(model: nn.Module, **patterns: Any) -> Closeup:
    return Closeup(model, LayerTable(model, **patterns).layers)


def names(model: nn.Module, **patterns: Any) -> tuple[str, ...]:
    return LayerTable(model, **patterns).names


def by_name(model: nn.Module, column: np.ndarray, **patterns: Any) -> dict[str, float]:
    """What is known of a column, by layer."""
    return {n: float(v) for n, v in zip(names(model, **patterns), column, strict=True) if not np.isnan(v)}


def looked_at(model: nn.Module, step: Callable[[], Any], **patterns: Any) -> CloseupStats:
    look = closeup(model, **patterns)
    look.arm()
    step()
    return look.take()


def measured(stats: CloseupStats) -> np.ndarray:
    """[2, L]."""
    return np.stack([stats.saturated, stats.time_ratio])


def saturated(model: nn.Module, step: Callable[[], Any], **patterns: Any) -> dict[str, float]:
    return by_name(model, looked_at(model, step, **patterns).saturated, **patterns)


def ratio(model: nn.Module, step: Callable[[], Any], **patterns: Any) -> dict[str, float]:
    return by_name(model, looked_at(model, step, **patterns).time_ratio, **patterns)


def hooks_on(model: nn.Module) -> int:
    return sum(sum(hook_counts(module).values()) for module in model.modules())


class Looped(nn.Module):
    """A cell, called once per time step."""

    def __init__(self, kind: type[nn.RNNCellBase] = nn.RNNCell, **options: Any) -> None:
        super().__init__()
        self.cell = kind(SIZE, SIZE, **options)  # type: ignore[call-arg]
        self.head = nn.Linear(SIZE, 1)

    def forward(self, x: Tensor, state: Any = None) -> Tensor:
        for x_t in x:
            state = self.cell(x_t, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Last(nn.Module):
    """A recurrent module of which only the last output is used."""

    def __init__(self, kind: type[nn.RNNBase] = nn.RNN, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(SIZE, SIZE, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(options.get("proj_size") or SIZE * (1 + self.rnn.bidirectional), 1)

    def forward(self, x: Any) -> Tensor:
        output = self.rnn(x)[0]
        if isinstance(output, PackedSequence):
            output = nn.utils.rnn.pad_packed_sequence(output)[0]
        return self.head(output[:, -1] if self.rnn.batch_first and output.ndim == 3 else output[-1])


class Gated(nn.Module):
    """A gated recurrence by hand, of modules that are used at each time step."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new = nn.Linear(2 * SIZE, SIZE), nn.Linear(2 * SIZE, SIZE)
        self.sigmoid, self.tanh = nn.Sigmoid(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[0])
        for x_t in x:
            both = torch.cat([x_t, h], -1)
            z = self.sigmoid(self.gate(both))
            h = z * h + (1 - z) * self.tanh(self.new(both))
        return h


NETS: dict[str, Callable[[], nn.Module]] = {
    "RNN": Last,
    "GRU, two layers, batch first": partial(Last, nn.GRU, num_layers=2, batch_first=True),
    "LSTM": partial(Last, nn.LSTM),
    "LSTM, dropout": partial(Last, nn.LSTM, num_layers=2, dropout=0.5),
    "LSTM, projected": partial(Last, nn.LSTM, num_layers=2, proj_size=2),
    "LSTM, bidirectional": partial(Last, nn.LSTM, bidirectional=True),
    "RNNCell": Looped,
    "GRUCell": partial(Looped, nn.GRUCell),
    "LSTMCell": partial(Looped, nn.LSTMCell),
    "tanh": lambda: nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), nn.Dropout(), nn.Linear(SIZE, SIZE), nn.Tanh()),
    "sigmoid after norm": lambda: nn.Sequential(nn.Linear(SIZE, 5), nn.LayerNorm(5), nn.Sigmoid(), nn.Linear(5, 1)),
    "in place": lambda: nn.Sequential(nn.Linear(SIZE, SIZE), nn.Hardtanh(inplace=True), nn.Linear(SIZE, 1)),
    "gated": Gated,
    "several": lambda: nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), Last(nn.GRU), nn.Sigmoid()),
}


def inputs(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    x = normal(STEPS, BATCH, SIZE, seed=seed).to(dtype)
    if kind == "data":
        return x
    leaf = x.requires_grad_()
    return leaf if kind == "a leaf" else leaf * 1.5 if kind == "computed" else leaf[:1].expand(STEPS, BATCH, SIZE)


def trained(
    build: Callable[[], nn.Module], watching: bool, step: Callable[[nn.Module, Tensor], Tensor], kind: str
) -> Any:
    """All that three steps leave behind; the middle one is looked at twice."""
    torch.manual_seed(0)
    model = build()
    look, left = closeup(model), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for i in range(3):
        x = inputs(kind, seed=i, dtype=next(model.parameters()).dtype)
        if watching:
            look.arm()
        optimizer.zero_grad()
        loss = step(model, x)
        leaf_gradient = x.grad if x.is_leaf else None
        left.append(printed([loss, x, x.requires_grad, x.is_leaf, leaf_gradient]))
        left.append(printed([p.grad for p in model.parameters()]))
        if watching:
            look.take()
        optimizer.step()
    return left, printed(model.state_dict()), printed(torch.get_rng_state()), hooks_on(model)


def plainly(model: nn.Module, x: Tensor) -> Tensor:
    loss = model(x).square().mean()
    loss.backward()
    return loss


def accumulating(model: nn.Module, x: Tensor) -> Tensor:
    plainly(model, x)
    return plainly(model, x)


def under_autocast(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    return loss


def twice_backward(model: nn.Module, x: Tensor) -> Tensor:
    loss = model(x).square().mean()
    loss.backward(retain_graph=True)
    loss.backward()
    return loss


def penalised(model: nn.Module, x: Tensor) -> Tensor:
    """Of the size of the gradient."""
    loss = model(x).square().mean()
    gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], create_graph=True)
    loss = loss + sum(g.square().sum() for g in gradients)
    loss.backward()
    return loss


def checkpointed(model: nn.Module, x: Tensor, *, reentrant: bool) -> Tensor:
    loss = checkpoint(model, x, use_reentrant=reentrant).square().mean()
    loss.backward()
    return loss


def saved_elsewhere(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return plainly(model, x)


WAYS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "plainly": plainly,
    "accumulating": accumulating,
    "under autocast": under_autocast,
    "backward twice": twice_backward,
    "double backward": penalised,
    "checkpoint": partial(checkpointed, reentrant=False),
    "saved on the host": saved_elsewhere,
}


@pytest.mark.parametrize("kind", ["data", "a leaf", "computed", "expanded"])
@pytest.mark.parametrize("name", NETS)
def test_no_bit_of_training_changes(name: str, kind: str) -> None:
    unwatched, watched = (trained(NETS[name], watching, plainly, kind) for watching in (False, True))
    assert watched == unwatched
    assert watched[-1] == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way != "plainly"])
@pytest.mark.parametrize("name", NETS)
def test_no_bit_of_training_changes_however_it_trains(name: str, way: str) -> None:
    for kind in ("data", "a leaf"):
        outcomes = []
        for watching in (False, True):
            try:
                outcomes.append(trained(NETS[name], watching, WAYS[way], kind))
            except RuntimeError as error:  # some kernels have no second derivative
                outcomes.append(str(error))
        assert outcomes[1] == outcomes[0]


@pytest.mark.parametrize("name", NETS)
def test_no_bit_of_training_changes_with_a_checkpoint_that_runs_again(name: str) -> None:
    way = partial(checkpointed, reentrant=True)
    unwatched, watched = (trained(NETS[name], watching, way, "a leaf") for watching in (False, True))
    assert watched == unwatched


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_no_bit_of_training_changes_in_any_precision(name: str, dtype: torch.dtype) -> None:
    build: Callable[[], nn.Module] = lambda: NETS[name]().to(dtype)  # noqa: E731
    unwatched, watched = (trained(build, watching, plainly, "data") for watching in (False, True))
    assert watched == unwatched


def test_a_leaf_that_is_used_at_every_time_step_under_autocast() -> None:
    class Decoder(Looped):
        def __init__(self) -> None:
            super().__init__()
            self.start = nn.Parameter(normal(1, SIZE))

        def forward(self, x: Tensor, state: Any = None) -> Tensor:
            for _ in x:
                state = self.cell(self.start, state)
            return self.head(state)

    unwatched, watched = (trained(Decoder, watching, under_autocast, "data") for watching in (False, True))
    assert watched == unwatched


# What time_ratio measures.


def true_ratio(gradient: Tensor, dim: int = 0) -> float:
    n = gradient.double().movedim(dim, 0).reshape(gradient.shape[dim], -1).norm(dim=1)
    return float(n[: len(n) // 4].max() / n.max())


def test_time_ratio_of_a_recurrence_unrolled_by_hand() -> None:
    torch.manual_seed(0)
    model = Last().double()
    rnn = model.rnn
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(0.5 * torch.linalg.qr(normal(SIZE, SIZE).double())[0])
    x = 0.1 * normal(STEPS, BATCH, SIZE).double()
    found = ratio(model, lambda: model(x).sum().backward())
    parts, h = [x_t.clone().requires_grad_() for x_t in x], torch.zeros(BATCH, SIZE).double()
    for x_t in parts:
        h = torch.tanh(x_t @ rnn.weight_ih_l0.T + rnn.bias_ih_l0 + h @ rnn.weight_hh_l0.T + rnn.bias_hh_l0)
    gradients = torch.autograd.grad(model.head(h).sum(), parts)
    assert found == {"rnn": pytest.approx(true_ratio(torch.stack(gradients)), rel=1e-9)}
    assert found["rnn"] < 0.5 ** (STEPS - STEPS // 4 - 1)  # tanh shrinks it further


@pytest.mark.parametrize("build", [build for name, build in NETS.items() if name[:3] in ("RNN", "GRU", "LST")])
def test_time_ratio_of_every_kind(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = build().double().eval()  # without dropout
    x = normal(STEPS, BATCH, SIZE).double()
    first = isinstance(model, Last) and model.rnn.batch_first
    x = x.transpose(0, 1) if first else x
    (gradient,) = torch.autograd.grad(model(x.requires_grad_()).sum(), x)
    expected = true_ratio(gradient, dim=int(first))
    layer = "cell" if isinstance(model, Looped) else "rnn"
    both_ways = isinstance(model, Last) and model.rnn.bidirectional
    for given in (x.detach(), x):
        found = ratio(model, lambda given=given: model(given).sum().backward())
        assert found == ({} if both_ways else {layer: pytest.approx(expected, rel=1e-9)})


def test_time_ratio_of_one_sequence_and_of_keywords() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(SIZE, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(input=x)[1]

    model = Named()
    x = normal(STEPS, SIZE)
    (gradient,) = torch.autograd.grad(model(x.requires_grad_()).sum(), x)
    found = ratio(model, lambda: model(x.detach()).sum().backward())
    assert found == {"rnn": pytest.approx(true_ratio(gradient), rel=1e-5)}


@pytest.mark.parametrize("sort", [True, False])
def test_time_ratio_of_packed_sequences(sort: bool) -> None:
    model = Last(nn.LSTM)
    lengths = [STEPS, 9, 4] if sort else [9, STEPS, 4]
    padded = normal(STEPS, 3, SIZE).requires_grad_()
    pack = partial(pack_padded_sequence, lengths=torch.tensor(lengths), enforce_sorted=sort)
    (gradient,) = torch.autograd.grad(model(pack(padded)).square().sum(), padded)
    assert not gradient[9:, lengths.index(9)].any()
    expected = {"rnn": pytest.approx(true_ratio(gradient), rel=1e-5)}
    assert ratio(model, lambda: model(pack(padded.detach())).square().sum().backward()) == expected
    assert ratio(model, lambda: model(pack(padded)).square().sum().backward()) == expected


def test_packed_sequences_train_the_same() -> None:
    def packed(model: nn.Module, x: Tensor) -> Tensor:
        return plainly(model, pack_sequence([x[:, 0], x[:9, 1], x[:4, 2]]))

    for kind in ("data", "a leaf"):
        unwatched, watched = (trained(partial(Last, nn.GRU), watching, packed, kind) for watching in (False, True))
        assert watched == unwatched


def test_chunks_of_a_sequence_are_joined() -> None:
    model = Last(nn.GRU)
    x = normal(STEPS, BATCH, SIZE)

    def in_chunks(x: Tensor) -> Tensor:
        state = None
        for chunk in x.split(5):
            output, state = model.rnn(chunk, state)
        return model.head(output[-1]).sum()

    (gradient,) = torch.autograd.grad(in_chunks(x.requires_grad_()), x)
    found = ratio(model, lambda: in_chunks(x.detach()).backward())
    assert found == {"rnn": pytest.approx(true_ratio(gradient), rel=1e-5)}


@pytest.mark.parametrize("build", [Last, Looped])
def test_of_accumulated_gradients_the_first_pass_counts(build: Callable[[], nn.Module]) -> None:
    model = build()
    first, second = normal(STEPS, BATCH, SIZE), 100 * normal(STEPS, BATCH, SIZE, seed=1)
    alone = ratio(model, lambda: plainly(model, first))
    assert alone
    assert ratio(model, lambda: [plainly(model, first), plainly(model, second)]) == alone
    assert ratio(model, lambda: twice_backward(model, first)) == alone


def test_time_ratio_of_a_loss_scale_is_the_same_and_far_below_float32s_squares() -> None:
    torch.manual_seed(0)
    model, x = Looped(), normal(STEPS, BATCH, SIZE)
    (expected,) = ratio(model, lambda: model(x).sum().backward()).values()
    for scale in (2.0**16, 1e-28):
        assert ratio(model, lambda scale=scale: (scale * model(x).sum()).backward()) == {
            "cell": pytest.approx(expected, rel=1e-3)
        }


@pytest.mark.parametrize("scale", [0.0, NAN, INF])
def test_no_time_ratio_of_gradients_that_are_zero_or_not_finite(scale: float) -> None:
    model, x = Last(), normal(STEPS, BATCH, SIZE)
    assert ratio(model, lambda: (scale * model(x).sum()).backward()) == {}


# What output_gradient measures.


class Returns(Last):
    """Returns its outputs in another shape."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(super().forward(x))


@pytest.mark.parametrize(
    "pack", [lambda y: y, lambda y: (y, None, 3.0), lambda y: {"logits": y, "loss": y.sum()}, lambda y: [y.detach(), y]]
)
def test_output_gradient_is_the_norm_of_all_examples(pack: Callable[[Tensor], Any]) -> None:
    model, x, target = Returns(pack), normal(STEPS, BATCH, SIZE), normal(BATCH, 1)

    def step() -> None:
        returned = model(x)
        values = returned.values() if isinstance(returned, dict) else returned
        (y,) = [v for v in ([values] if isinstance(values, Tensor) else values) if getattr(v, "requires_grad", 0)][:1]
        nn.functional.mse_loss(y, target).backward()

    found = looked_at(model, step).output_gradient
    with torch.no_grad():
        y = Last.forward(model, x)
    assert found == pytest.approx(float((2 / BATCH * (y - target)).norm()), rel=1e-5)
    assert hooks_on(model) == 0


@pytest.mark.parametrize(
    "step",
    [
        lambda model, x: nn.functional.l1_loss(model(x), torch.full((BATCH, 1), 9.0)).backward(),  # of one size
        lambda model, x: model(x),
    ],
)
def test_no_output_gradient_where_it_does_not_tell_how_large_the_error_is(step: Callable[..., Any]) -> None:
    model, x = Last(), normal(STEPS, BATCH, SIZE)
    assert np.isnan(looked_at(model, lambda: step(model, x)).output_gradient)


def test_output_gradient_is_that_of_the_last_layer_with_weights() -> None:
    plain, x = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh()), normal(BATCH, SIZE)
    found = looked_at(plain, lambda: plain(x).square().sum().backward()).output_gradient
    with torch.no_grad():
        y = plain(x)
    assert found == pytest.approx(float((2 * y * (1 - y**2)).norm()), rel=1e-5)


# What saturated measures.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_saturated_against_the_derivative(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    activation, largest = DERIVATIVES[name]
    model = nn.Sequential(nn.Linear(SIZE, 50), activation, nn.Linear(50, 1)).to(dtype)
    x = 5 * normal(40, SIZE).to(dtype)
    y = activation(before := model[0](x).detach().double().requires_grad_())
    (slope,) = torch.autograd.grad(y.sum(), before)
    expected = float((slope < 0.05 * largest).double().mean())
    assert 0.05 < expected < 0.95
    low_precision = dtype in (torch.float16, torch.bfloat16)
    assert saturated(model, lambda: plainly(model, x)) == {"0": pytest.approx(expected, abs=0.02 * low_precision)}


BETWEEN: dict[str, Callable[[], nn.Module]] = {
    "nothing": lambda: nn.Linear(SIZE, SIZE),
    "no bias": lambda: nn.Linear(SIZE, SIZE, bias=False),
    "two linear maps without bias": lambda: nn.Sequential(nn.Linear(SIZE, 2), nn.Linear(2, SIZE, bias=False)),
    "dropout and a view": lambda: nn.Sequential(nn.Linear(SIZE, SIZE), nn.Dropout(), nn.Flatten(0)),
    "batch norm without parameters": lambda: nn.Sequential(nn.Linear(SIZE, 6), nn.BatchNorm1d(6, affine=False)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(SIZE, SIZE)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, SIZE)), nn.Conv1d(1, 2, 3)),
    "batch norm": lambda: nn.Sequential(nn.Linear(SIZE, 6), nn.BatchNorm1d(6)),
}


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("kind", ["data", "a leaf"])
def test_the_layer_that_feeds_an_activation_is_the_last_before_it(name: str, kind: str) -> None:
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), BETWEEN[name](), nn.Tanh())
    x = normal(BATCH, SIZE).requires_grad_(kind == "a leaf")
    expected = names(model)[-1]
    assert expected.startswith("2")
    assert list(saturated(model, lambda: model(x).sum().backward())) == [expected]


def test_one_activation_for_several_layers_and_several_for_one() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.tanh, self.sigmoid = nn.Linear(1, 2), nn.Linear(2, 3), nn.Tanh(), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.a(x)
            return self.tanh(self.b(self.tanh(hidden) * self.sigmoid(hidden)))

    model = Shared()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([[1.0], [3.0]]))
        model.b.weight.zero_()
        for layer in (model.a, model.b):
            layer.bias.zero_()
    # Of a, tanh(3) is saturated, sigmoid(3) and tanh(1) are not; at 0 nothing is.
    assert saturated(model, lambda: plainly(model, torch.tensor([[1.0], [0.0]]))) == {"a": 1 / 8, "b": 0.0}


def test_of_a_recurrence_by_hand_each_gate_is_judged_by_all_time_steps() -> None:
    torch.manual_seed(0)
    model, x, seen = Gated(), 10 * normal(STEPS, BATCH, SIZE), []
    model.sigmoid.register_forward_hook(lambda _, __, y: seen.append(y.detach().double()))
    found = saturated(model, lambda: plainly(model, x))
    y = torch.stack(seen)
    assert found["gate"] == float((y * (1 - y) < 0.05 * 0.25).double().mean())
    assert set(found) == {"gate", "new"}


def test_all_calls_count() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    large, small = torch.full((3, 1), 9.0), torch.zeros(1, 1)
    assert saturated(model, lambda: [plainly(model, large), plainly(model, small)]) == {"0": 0.75}


@pytest.mark.parametrize("how", ["frozen", "excluded", "no_grad", "inference", "no layer", "reentrant before"])
def test_no_layer_that_feeds_an_activation(how: str) -> None:
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE), nn.Tanh(), nn.Linear(SIZE, 1))
    patterns: dict[str, Any] = {}
    x = normal(BATCH, SIZE)
    step: Callable[[], Any] = lambda: plainly(model, x)  # noqa: E731
    if how == "frozen":
        model[:2].requires_grad_(False)
    elif how == "excluded":
        patterns = {"exclude": "1"}
    elif how == "no_grad":
        step = torch.no_grad()(lambda: model(x))
    elif how == "inference":
        step = torch.inference_mode()(lambda: model(x))
    elif how == "no layer":
        model = nn.Sequential(nn.Tanh(), nn.Linear(SIZE, 1))
        x.requires_grad_()
    else:
        step = lambda: model[2:](checkpoint(model[:2], x.requires_grad_(), use_reentrant=True)).sum().backward()  # noqa: E731
    assert saturated(model, step, **patterns) == {}


def test_a_validation_without_gradients_does_not_count() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())

    def step() -> None:
        with torch.no_grad():
            model.eval()(torch.full((3, 1), 1e6))
        plainly(model.train(), torch.zeros(1, 1))

    assert saturated(model, step) == {"0": 0.0}


def test_layers_of_wrapped_models_have_their_own_names() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), Last(nn.LSTM))

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    x = normal(STEPS, BATCH, SIZE)
    inner = Whole()
    for model in (inner, torch.optim.swa_utils.AveragedModel(inner)):
        found = looked_at(model, lambda model=model: plainly(model, x))
        assert list(by_name(model, found.saturated)) == ["module.0"]
        assert list(by_name(model, found.time_ratio)) == ["module.2.rnn"]


@pytest.mark.parametrize(
    "model", [nn.LSTM(SIZE, SIZE), parametrizations.weight_norm(nn.LSTM(SIZE, SIZE), "weight_hh_l0")]
)
def test_a_recurrent_module_that_is_the_model(model: nn.Module) -> None:
    x = normal(STEPS, BATCH, SIZE)
    assert list(ratio(model, lambda: model(x)[0].sum().backward())) == ["LSTM"] or len(names(model)) == 1


def test_by_parameter_the_first_of_a_module_stands_for_it() -> None:
    model, x = Last(nn.LSTM), normal(STEPS, BATCH, SIZE)
    layers = {"granularity": "parameter"}
    assert list(ratio(model, lambda: plainly(model, x), **layers)) == ["rnn.weight_ih_l0"]
    model, x = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh()), x[0]
    assert len(saturated(model, lambda: plainly(model, x), **layers)) == 1


def test_a_module_with_a_forward_of_its_own_is_left_alone() -> None:
    class Other(nn.RNN):
        def forward(self, x: Tensor) -> Any:  # type: ignore[override]
            x.mul_(2.0)
            return super().forward(x)

    model, x = Other(SIZE, SIZE), normal(STEPS, BATCH, SIZE)
    assert ratio(model, lambda: model(x)[0].sum().backward()) == {}


def test_frozen_modules_give_outputs_without_gradient() -> None:
    model, x = Last().requires_grad_(False), normal(STEPS, BATCH, SIZE)
    model.head.requires_grad_(True)
    look = closeup(model)
    look.arm()
    assert not model.rnn(x)[0].requires_grad
    look.close()


# What it does not do.


class Marked(torch.autograd.Function):
    """A node of the graph by which can be told whether the graph is still there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, marker: Any) -> Tensor:
        ctx.marker = marker
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@pytest.mark.parametrize("end", [Closeup.take, Closeup.close, Closeup.__del__])
@pytest.mark.parametrize("backward", [True, False])
def test_nothing_of_the_step_is_kept(end: Callable[[Closeup], Any], backward: bool) -> None:
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), Last(nn.LSTM))
    look, alive = closeup(model), []
    look.arm()
    for rnn_input in ("data", "computed"):
        hidden = model[1](model[0](x := inputs("data")))
        marker = nn.Module()
        loss = Marked.apply(model[2](hidden if rnn_input == "computed" else x), marker).sum() + hidden.sum()
        if backward:
            loss.backward()
        alive += [weakref.ref(thing) for thing in (x, hidden, loss, marker)]
    del x, hidden, loss, marker
    assert [thing() for thing in alive] == [None] * 8
    end(look)
    assert hooks_on(model) == 0


def test_the_model_can_be_freed_while_armed() -> None:
    model = NETS["several"]()
    look = closeup(model)
    look.arm()
    plainly(model, normal(STEPS, BATCH, SIZE))
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert np.isfinite(look.take().saturated[0])
    look.arm()
    look.close()


def test_hooks_go_with_the_closeup_and_the_users_stay() -> None:
    model = NETS["several"]()
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append("after"))
    model[2].rnn.register_forward_pre_hook(lambda *_: calls.append("before"))
    before = [hook_counts(module) for module in model.modules()]
    look = closeup(model)
    look.arm()
    assert [hook_counts(module) for module in model.modules()] != before
    look.arm()
    plainly(model, normal(STEPS, BATCH, SIZE))
    assert calls == ["after", "before"]
    del look
    assert [hook_counts(module) for module in model.modules()] == before


def test_hooks_of_the_users_see_and_change_what_they_did() -> None:
    model = NETS["several"]()
    model[1].register_forward_hook(lambda _, __, output: output.detach())  # no graph is left behind it
    model[2].rnn.register_forward_pre_hook(lambda _, args: (args[0].mul_(2.0), *args[1:]))
    found = looked_at(model, lambda: plainly(model, normal(STEPS, BATCH, SIZE)))
    assert set(by_name(model, found.saturated)) == {"0", "2.head"}
    assert set(by_name(model, found.time_ratio)) == {"2.rnn"}


def test_unknown_before_any_forward_and_after_it_was_taken() -> None:
    model = NETS["several"]()
    look = closeup(model)
    for _ in range(2):
        for stats in (look.take(), (look.arm(), look.take())[1]):
            assert np.isnan(measured(stats)).all()
            assert measured(stats).shape == (2, 3)
            assert stats.saturated.dtype == stats.time_ratio.dtype == np.float64
        look.close()


def test_it_can_be_armed_again_and_again() -> None:
    model, x = NETS["several"](), normal(STEPS, BATCH, SIZE)
    look = closeup(model)
    found = []
    for _ in range(3):
        look.arm()
        plainly(model, x)
        found.append(measured(look.take()))
        plainly(model, x)
        assert np.isnan(measured(look.take())).all()
    np.testing.assert_equal(found[1:], found[:-1])


def test_a_forward_that_raises_leaves_a_closeup_that_works() -> None:
    model, x = NETS["several"](), normal(STEPS, BATCH, SIZE)
    look = closeup(model)
    look.arm()
    with pytest.raises(RuntimeError):
        model(x[..., :1])
    with pytest.raises((TypeError, RuntimeError, AttributeError)):
        model[2].rnn("no tensor")
    with pytest.raises(TypeError):
        model[2].rnn()
    plainly(model, x)
    found = look.take()
    assert np.isfinite(found.saturated[[0, 2]]).all()
    assert hooks_on(model) == 0


PARTS = {
    "feeding_row": saturated_outputs,
    "step_norms": time_gradient,
    "_own": time_gradient,
    "time_ratio": time_gradient,
    "_saved_tensors_are_taken": closeup_module,
}


@pytest.mark.parametrize("part", PARTS)
def test_what_fails_is_not_known_and_training_goes_on(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError(part)

    unwatched = trained(NETS["several"], False, plainly, "data")
    monkeypatch.setattr(PARTS[part], part, fail)
    assert trained(NETS["several"], True, plainly, "data") == unwatched
    model = NETS["several"]()
    found = looked_at(model, lambda: plainly(model, normal(STEPS, BATCH, SIZE)))
    assert np.isnan(measured(found)).any()


def copies(model: nn.Module) -> Iterator[nn.Module]:
    yield copy.deepcopy(model)
    yield pickle.loads(pickle.dumps(model))
    torch.save(model, file := io.BytesIO())
    file.seek(0)
    yield torch.load(file, weights_only=False)


def test_copies_of_a_model_do_not_look() -> None:
    model, x = Last(nn.LSTM), normal(STEPS, BATCH, SIZE)
    look = closeup(model)
    look.arm()
    expected = printed(plainly(model, x))
    for other in copies(model):
        assert printed(plainly(other, x)) == expected
        for another in copies(other):
            assert printed(plainly(another, x)) == expected
        seen: list[Tensor] = []
        other.rnn.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        other(x)
        assert seen[0] is x
    model = nn.Sequential(nn.Linear(1, 1), nn.Tanh())
    look = closeup(model)
    look.arm()
    for other in copies(model):
        plainly(other, torch.ones(1, 1))
    assert np.isnan(measured(look.take())).all()


def test_a_file_of_a_model_needs_no_gradwatch(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.LSTM(1, 1))
    look = closeup(model)
    look.arm()
    torch.save(model, tmp_path / "model.pt")
    look.close()
    code = (
        "import sys; sys.modules['gradwatch'] = None\n"
        "import torch\n"
        "print(*torch.load(sys.argv[1], weights_only=False)(torch.ones(9, 2, 1))[0].shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.pt")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["9", "2", "1"]


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.tanh, self.loop = nn.Linear(SIZE, SIZE), nn.Tanh(), Looped()

    def forward(self, x: Tensor) -> Tensor:
        return self.loop(self.tanh(self.first(x)))


@pytest.mark.parametrize("first", [False, True], ids=["compiled before", "compiled while armed"])
def test_compiled_models_train_the_same_and_are_not_compiled_anew(first: bool) -> None:
    def run(watching: bool) -> tuple[list[str], int]:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        model = torch.compile(Compiled(), backend="aot_eager", fullgraph=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        look, losses = closeup(model), []
        for i in range(8):
            if armed := watching and (i % 2 == 0) == first:
                look.arm()
            optimizer.zero_grad()
            losses.append(printed(plainly(model, normal(STEPS, BATCH, SIZE, seed=i))))
            if armed:
                assert np.isnan(measured(look.take())).all()
            optimizer.step()
        return losses, torch._dynamo.utils.counters["stats"]["unique_graphs"]

    (unwatched, once), (watched, graphs) = run(False), run(True)
    assert watched == unwatched
    assert (once, graphs) == (1, 1 + first)


def test_of_a_model_that_is_compiled_in_parts_the_rest_is_looked_at() -> None:
    torch._dynamo.reset()
    model = Compiled()
    model.first = torch.compile(model.first, backend="aot_eager")
    assert list(ratio(model, lambda: plainly(model, normal(STEPS, BATCH, SIZE)))) == ["loop.cell"]


def test_a_checkpoint_may_be_recomputed_after_the_step_was_taken() -> None:
    for build in (Last, Looped, NETS["several"]):
        model = build()
        look = closeup(model)
        look.arm()
        loss = checkpoint(model, normal(STEPS, BATCH, SIZE), use_reentrant=False).sum()
        assert np.isnan(look.take().time_ratio).all()
        loss.backward()


def test_inside_a_reentrant_checkpoint_what_is_computed_again_counts() -> None:
    model, x = NETS["several"](), normal(STEPS, BATCH, SIZE)
    plain = looked_at(model, lambda: plainly(model, x))
    again = looked_at(model, lambda: checkpointed(model, x.clone().requires_grad_(), reentrant=True))
    np.testing.assert_allclose(measured(again), measured(plain))


def test_hooks_for_saved_tensors_stay_as_they_are() -> None:
    look = closeup(model := Last())
    look.arm()
    with torch.autograd.graph.disable_saved_tensors_hooks("the user's"):
        model(x := normal(STEPS, BATCH, SIZE))
        with pytest.raises(RuntimeError, match="the user's"), torch.autograd.graph.save_on_cpu():
            pass
    with torch.autograd.graph.save_on_cpu():
        model(x)
    with torch.autograd.graph.save_on_cpu():
        pass
    look.close()


def test_the_gradient_of_the_data_is_not_kept() -> None:
    kept: list[Tensor] = []
    model, x = Last(), normal(STEPS, BATCH, SIZE)
    model.rnn.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    look = closeup(model)
    look.arm()
    model.rnn.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    plainly(model, x)
    assert kept[0] is x
    leaf = kept[1].grad_fn.next_functions[0][0].variable  # type: ignore[union-attr]
    assert (leaf.is_leaf, leaf.grad, leaf.data_ptr()) == (True, None, x.data_ptr())
    assert (x.requires_grad, x.grad) == (False, None)
    look.close()


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace_method` is deprecated:DeprecationWarning")
def test_a_traced_model_is_the_same() -> None:
    model, x = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh(), nn.RNNCell(SIZE, SIZE)), normal(BATCH, SIZE)
    look = closeup(model)

    def operations() -> list[str]:
        return [node.kind() for node in torch.jit.trace(model, x).inlined_graph.nodes()]

    expected = operations()
    look.arm()
    assert operations() == expected
    look.close()


def test_where_there_is_nothing_to_look_at_it_costs_nothing() -> None:
    model = nn.Sequential(nn.LayerNorm(SIZE), nn.ReLU())
    look = closeup(model)

    def step() -> None:
        look.arm()
        look.take()

    step()
    assert hooks_on(model) == 0
    assert min(timeit.repeat(step, number=100, repeat=20)) / 100 < 50e-6


# What the layers are given.


def given(model: nn.Module, step: Callable[[], Any], **patterns: Any) -> dict[str, tuple[float, float, float]]:
    """By layer the three shares, of those of which any is known."""
    stats = looked_at(model, step, **patterns)
    rows = np.stack([stats.variation, stats.variation_within, stats.given_nothing], axis=1)
    return {n: tuple(row) for n, row in zip(names(model, **patterns), rows.tolist()) if not np.isnan(row).all()}


def test_what_layers_with_weights_are_given_and_no_others() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.core, self.norm = nn.Embedding(9, SIZE), nn.GRU(SIZE, SIZE), nn.LayerNorm(SIZE)
            self.conv, self.head = nn.Conv1d(SIZE, SIZE, 3), nn.Linear(SIZE, 1)

        def forward(self, tokens: Tensor) -> Tensor:
            states, _ = self.core(self.norm(self.table(tokens)))
            return self.head(self.conv(states.movedim(1, 2)).movedim(1, 2).relu())

    torch.manual_seed(0)
    model, seen = Mixed(), {}
    for name in ("conv", "head"):
        model.get_submodule(name).register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0].detach()}))
    found = given(model, lambda: plainly(model, torch.randint(9, (BATCH, 7))))
    assert {name: tuple(shares) for name, shares in found.items()} == {
        "conv": pytest.approx(tuple(input_shares(seen["conv"], sequences=False).tolist()), nan_ok=True),
        "head": pytest.approx(tuple(input_shares(seen["head"], sequences=True).tolist())),
    }


def test_of_several_calls_the_one_whose_examples_differ_most() -> None:
    model = nn.Linear(SIZE, 1)
    alike, zeros, different = torch.ones(BATCH, SIZE), torch.zeros(BATCH, SIZE), normal(BATCH, SIZE)
    found = given(model, lambda: [plainly(model, x) for x in (alike, different, zeros)])
    assert found["Linear"][0] == pytest.approx(float(input_shares(different, sequences=True)[0]))
    assert given(model, lambda: [plainly(model, x) for x in (zeros, alike)])["Linear"][2] == 0.0


@pytest.mark.parametrize("unknown", [torch.ones(1, SIZE), torch.full((BATCH, SIZE), NAN)], ids=["one example", "NaN"])
def test_a_call_that_tells_nothing_hides_none_that_does(unknown: Tensor) -> None:
    model, different = nn.Linear(SIZE, 1), normal(BATCH, SIZE)
    expected = {"Linear": pytest.approx(tuple(input_shares(different, sequences=True).tolist()), nan_ok=True)}
    for calls in ((unknown, different), (different, unknown)):
        assert given(model, lambda calls=calls: [plainly(model, x) for x in calls]) == expected


def test_sparse_inputs_are_not_known_and_train_all_the_same() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(normal(SIZE, 2)), nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.sparse.mm(x, self.weight))

    torch.manual_seed(0)
    model, x = Sparse(), torch.eye(SIZE).to_sparse()
    plainly(model, x)
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    assert list(given(model, lambda: plainly(model, x))) == ["head"]
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), expected, strict=True))


def test_a_frozen_layer_is_looked_at_as_well() -> None:
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 1))
    model[0].requires_grad_(False)
    x = normal(BATCH, SIZE)
    assert given(model, lambda: plainly(model, x))["0"][0] == pytest.approx(float(input_shares(x, sequences=True)[0]))


def test_many_calls_and_many_layers_are_looked_at_in_part() -> None:
    model = nn.Sequential(*[nn.Linear(SIZE, SIZE) for _ in range(3 * MODULES)])
    found = list(given(model, lambda: plainly(model, normal(BATCH, SIZE))))
    assert (len(found), found[0], found[-1]) == (MODULES, "0", str(3 * MODULES - 1))
    alike, different = torch.ones(BATCH, SIZE), normal(BATCH, SIZE)
    first = nn.Linear(SIZE, 1)
    assert given(first, lambda: [plainly(first, x) for x in [alike] * CALLS + [different]])["Linear"][0] == 0.0


@pytest.mark.parametrize("x", [torch.ones(SIZE), torch.ones(1, SIZE), torch.full((BATCH, SIZE), NAN)])
def test_inputs_that_tell_nothing(x: Tensor) -> None:
    model = nn.Linear(SIZE, 1)
    assert not any(between == between for between, *_ in given(model, lambda: plainly(model, x)).values())


DATA: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, float]]] = {
    "vectors": (lambda: nn.Sequential(nn.Linear(SIZE, 3), nn.ReLU(), nn.Linear(3, 1)), normal(BATCH, SIZE), {"0": 1.0}),
    "images": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), normal(BATCH, 1, 3, 3), {"0": 1.0}),
    "sequences": (Last, normal(STEPS, BATCH, SIZE), {"rnn": 1.0}),
    "one step after the other": (Looped, normal(1, BATCH, SIZE), {"cell": 1.0}),
    "behind a trained normalisation": (
        lambda: nn.Sequential(nn.LayerNorm(SIZE), nn.Linear(SIZE, 1)),
        normal(BATCH, SIZE),
        {},
    ),
    "behind one without parameters": (
        lambda: nn.Sequential(nn.LayerNorm(SIZE, elementwise_affine=False), nn.Linear(SIZE, 1)),
        normal(BATCH, SIZE),
        {"1": 1 / 300},
    ),
    "before a normalisation": (
        lambda: nn.Sequential(nn.Linear(SIZE, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 1)),
        normal(BATCH, SIZE),
        {},
    ),
    "behind a frozen layer": (
        lambda: nn.Sequential(nn.Linear(SIZE, SIZE, bias=False).requires_grad_(False), nn.Linear(SIZE, 1)),
        torch.ones(BATCH, SIZE),
        {"0": 1.0},  # what a frozen layer makes is no data
    ),
}
"""What the first layers are given, and its size, relative to that of the data where that is not 1."""


@pytest.mark.parametrize("case", DATA)
def test_the_size_of_data(case: str) -> None:
    build, x, expected = DATA[case]
    torch.manual_seed(0)
    model, x = build(), 300 * x
    for p in model.parameters():
        if not p.requires_grad:
            p.copy_(torch.eye(SIZE) / 2)
    size = float(x.double().square().mean().sqrt())
    found = by_name(model, looked_at(model, lambda: plainly(model, x)).data_rms)
    assert found == {
        name: pytest.approx(share * size, rel=0.4 if "without" in case else 1e-6) for name, share in expected.items()
    }
