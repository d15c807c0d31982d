"""The names that torch gives its nodes, and what they stand for, as torch itself computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gradwatch.graph_nodes import FACTORS, LARGEST_SLOPE, NORMALISED, PRESERVING, UNSEEN, base_name, kind_of
from gradwatch.profile import KINDS
from tests.tensors import normal

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Celu": F.celu,
    "Clamp": lambda x: x.clamp(-1, 1),
    "ClampMax": lambda x: x.clamp_max(0),
    "ClampMin": lambda x: x.clamp_min(0),
    "Cos": torch.cos,
    "Elu": F.elu,
    "Erf": torch.erf,
    "Gelu": F.gelu,
    "Hardshrink": F.hardshrink,
    "Hardsigmoid": F.hardsigmoid,
    "Hardswish": F.hardswish,
    "Hardtanh": F.relu6,
    "LeakyRelu": F.leaky_relu,
    "LogSigmoid": F.logsigmoid,
    "Mish": F.mish,
    "PreluKernel": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "Relu": torch.relu,
    "RreluWithNoise": lambda x: F.rrelu(x, training=True),
    "Sigmoid": torch.sigmoid,
    "Silu": F.silu,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softshrink": F.softshrink,
    "Tanh": torch.tanh,
    "Threshold": lambda x: F.threshold(x, 0.5, 0.0),
}

OTHERS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "Add": ("add", lambda x: x + 1),
    "AdaptiveAvgPool2D": ("pool", lambda x: F.adaptive_avg_pool2d(x[None], (2, 3))),
    "AvgPool2D": ("pool", lambda x: F.avg_pool2d(x[None], 2)),
    "Bmm": ("weight", lambda x: torch.bmm(x, normal(4, 6, 3, dtype=x.dtype))),
    "Cat": ("shape", lambda x: torch.cat([x, x])),
    "Convolution": ("weight", lambda x: F.conv1d(x, normal(2, 5, 3, dtype=x.dtype))),
    "Div": ("multiply", lambda x: x / 2),
    "Embedding": ("embedding", lambda x: F.embedding(torch.tensor([1, 0]), x[0])),
    "Glu": ("activation", F.glu),
    "LogSoftmax": ("loss", lambda x: F.log_softmax(x, -1)),
    "MaxPool2DWithIndices": ("pool", lambda x: F.max_pool2d(x[None], 2)),
    "Mean": ("pool", lambda x: x.mean(-1)),
    "Mm": ("weight", lambda x: x[0] @ normal(6, 3, dtype=x.dtype)),
    "MseLoss": ("loss", lambda x: F.mse_loss(x, torch.zeros_like(x))),
    "Mul": ("multiply", lambda x: x * 2),
    "Mv": ("weight", lambda x: x[0] @ normal(6, dtype=x.dtype)),
    "NativeBatchNorm": ("norm", lambda x: F.batch_norm(x, None, None, training=True)),
    "NativeGroupNorm": ("norm", lambda x: F.group_norm(x, 5)),
    "NativeLayerNorm": ("norm", lambda x: F.layer_norm(x, (6,))),
    "NllLoss": ("loss", lambda x: F.nll_loss(x[0], torch.tensor([0, 1, 2, 3, 4]))),
    "Softmax": ("attention", lambda x: torch.softmax(x, -1)),
    "Sub": ("add", lambda x: x - 1),
    "Sum": ("pool", lambda x: x.sum(-1)),
}

KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "Alias": lambda x: torch.ops.aten.alias(x),
    "Clone": lambda x: x.clone(),
    "Permute": lambda x: x.permute(2, 0, 1),
    "Squeeze": lambda x: x[:1].reshape(1, 5, 6).squeeze(0),
    "T": lambda x: x[0].t(),
    "ToCopy": lambda x: x.float(),
    "Transpose": lambda x: x.transpose(0, 1),
    "UnsafeView": lambda x: torch.ops.aten._unsafe_view(x, [20, 6]),
    "Unsqueeze": lambda x: x.unsqueeze(0),
    "View": lambda x: x.view(-1),
}


def data() -> Tensor:
    return normal(4, 5, 6, dtype=torch.float64).requires_grad_()


def name_of(output: Tensor) -> str:
    assert output.grad_fn is not None
    return base_name(output.grad_fn.name())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_known_by_the_name_of_its_node(name: str) -> None:
    assert (name_of(ACTIVATIONS[name](data())), kind_of(name)) == (name, "activation")


def test_every_activation_that_has_a_slope_is_tried_here() -> None:
    assert set(LARGEST_SLOPE) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", OTHERS)
def test_an_operation_is_known_by_the_name_of_its_node(name: str) -> None:
    kind, function = OTHERS[name]
    assert (name_of(function(data())), kind_of(name)) == (name, kind)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_largest_slope_is_the_largest_there_is(name: str) -> None:
    x = torch.linspace(-12, 12, 48_001, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(ACTIVATIONS[name](x).sum(), x)
    assert LARGEST_SLOPE[name] == pytest.approx(float(slope.abs().max()), rel=2e-3)


@pytest.mark.parametrize("name", KEPT)
def test_what_preserves_the_norm_does(name: str) -> None:
    x = data()
    y = KEPT[name](x)
    gradient = normal(*y.shape, dtype=y.dtype)
    (before,) = torch.autograd.grad(y, x, gradient)
    assert name_of(y) == name
    assert name in PRESERVING
    assert float(before.norm()) == pytest.approx(float(gradient.norm()), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "product"),
    {
        "Addmm": lambda a, b: torch.addmm(torch.zeros(1), a, b),
        "Addmv": lambda a, b: torch.addmv(torch.zeros(1), a, b[:, 0]),
        "Baddbmm": lambda a, b: torch.baddbmm(torch.zeros(1), a[None], b[None]),
        "Bmm": lambda a, b: torch.bmm(a[None], b[None]),
        "Convolution": lambda a, b: F.conv1d(a[None], b.t()[:, :, None].contiguous().expand(5, 3, 2)[:, :4]),
        "Mm": torch.mm,
        "Mv": lambda a, b: a @ b[:, 0],
    }.items(),
)
def test_a_product_has_its_factors_where_they_are_looked_for(
    name: str, product: Callable[[Tensor, Tensor], Tensor]
) -> None:
    a, b = torch.randn(4, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    if name == "Convolution":
        a = torch.randn(3, 7, requires_grad=True)
    output = product(a, b)
    assert name_of(output) == name
    for slot, factor in zip(FACTORS[name], (a, b)):
        node = output.grad_fn.next_functions[slot][0]
        while not hasattr(node, "variable"):
            node = node.next_functions[0][0]
        assert node.variable is factor


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no fused kernel")
def test_what_is_fused_is_known_by_its_name() -> None:
    assert name_of(nn.LSTM(2, 3)(torch.randn(4, 1, 2))[0]) in UNSEEN


def test_a_function_of_the_user_is_other() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * 2

    assert (name_of(Own.apply(data())), kind_of("Own")) == ("Own", "other")


def test_kinds_are_those_of_the_profile() -> None:
    kinds = {kind_of(name) for name in [*ACTIVATIONS, *OTHERS, *KEPT, *UNSEEN, *FACTORS, *NORMALISED, "?"]}
    assert kinds <= {*KINDS, "add", "shape", "leaf"}
    assert {kind_of(name) for name in UNSEEN} == {"parallel"}
