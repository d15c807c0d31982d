"""A gallery of small odd models; a bug first adds a model here, then its test."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint


class Example(NamedTuple):
    """A model and what to call it with."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    wrappers: tuple[str, ...] = ()
    """What wrappers put into the names of the parameters."""


GALLERY: dict[str, Callable[[], Example]] = {}


def build(name: str) -> Example:
    """The model of that name, the same at every call."""
    torch.manual_seed(0)
    return GALLERY[name]()


def backward(example: Example, scale: float = 1.0) -> None:
    """One forward and one backward with a smooth loss of everything that comes out."""
    out = example.model(*example.inputs)
    outputs = out if isinstance(out, tuple) else (out,)
    total = sum((o.abs() - 0.5).square().mean() for o in outputs if isinstance(o, Tensor))
    (scale * total).backward()


def layer_norms(example: Example) -> dict[str, float]:
    """The L2 norm of each layer's gradient by NumPy in float64, without the layers that have none."""
    squares: dict[str, float] = {}
    for name, parameter in example.model.named_parameters():
        if parameter.grad is not None:
            layer = layer_of(name, example)
            squares[layer] = squares.get(layer, 0.0) + float(np.square(np.abs(as_float64(parameter.grad))).sum())
    return {layer: float(np.sqrt(square)) for layer, square in squares.items()}


def layer_of(parameter: str, example: Example) -> str:
    """The layer that a name of ``named_parameters()`` belongs to, by its letters alone."""
    for wrapper in example.wrappers:
        parameter = parameter.replace(wrapper, "")
    return parameter.rpartition(".")[0].partition(".parametrizations")[0] or type(example.model).__name__


def as_float64(tensor: Tensor) -> np.ndarray:
    """The elements of any tensor, dense, as float64 or complex128."""
    dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    wide = dense.to(torch.complex128 if dense.is_complex() else torch.float64)
    return wide.resolve_conj().resolve_neg().numpy()


def _exhibit(function: Callable[[], Example]) -> Callable[[], Example]:
    GALLERY[function.__name__] = function
    return function


@_exhibit
def mlp() -> Example:
    """Linear layers with a ReLU between them."""
    return Example(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (torch.randn(5, 4),))


@_exhibit
def conv_channels_last() -> Example:
    """Convolutions in channels_last, whose gradients are not contiguous."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model = model.to(memory_format=torch.channels_last)
    return Example(model, (torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)])
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.down[0](x))
        second = torch.relu(self.norm(self.down[1](torch.max_pool2d(first, 2))))
        return self.out(torch.cat([first, self.up(second)], dim=1))


@_exhibit
def unet() -> Example:
    """Down, up and a skip connection."""
    return Example(UNet(), (torch.randn(2, 1, 8, 8),))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.h = nn.ModuleList([Block(8), Block(8)])
        self.ln_f = nn.LayerNorm(8)
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


@_exhibit
def gpt() -> Example:
    """A transformer whose head is its embedding."""
    return Example(GPT(), (torch.randint(0, 11, (2, 6)),))


class LastStep(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@_exhibit
def lstm() -> Example:
    """Two LSTM layers, which are one module with eight parameters."""
    return Example(LastStep(nn.LSTM(3, 6, num_layers=2, batch_first=True)), (torch.randn(2, 7, 3),))


@_exhibit
def gru() -> Example:
    """A GRU."""
    return Example(LastStep(nn.GRU(3, 6, batch_first=True)), (torch.randn(2, 7, 3),))


class CellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return h


@_exhibit
def rnn_cell_loop() -> Example:
    """One RNNCell, called at every time step."""
    return Example(CellLoop(), (torch.randn(2, 9, 3),))


@_exhibit
def frozen_layers() -> Example:
    """A first layer and a bias that do not train."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return Example(model, (torch.randn(5, 4),))


class WithParameter(nn.Module):
    def __init__(self, parameter: Tensor) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.inner = nn.Module()
        self.inner.p = nn.Parameter(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.inner.p.sum()


@_exhibit
def zero_element_parameter() -> Example:
    """A parameter without elements."""
    return Example(WithParameter(torch.zeros(0, 3)), (torch.randn(5, 4),))


@_exhibit
def scalar_parameter() -> Example:
    """A parameter without dimensions, as a learned temperature."""
    return Example(WithParameter(torch.tensor(0.3)), (torch.randn(5, 4),))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3, dtype=torch.complex64)
        self.real = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.real(self.fc(x).abs())


@_exhibit
def complex_parameters() -> Example:
    """Complex and real parameters in one model."""
    return Example(Complex(), (torch.randn(5, 4, dtype=torch.complex64),))


class Adjoint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3, bias=False, dtype=torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.fc.weight.mH


@_exhibit
def conjugated_gradient() -> Example:
    """A complex weight used by its adjoint: its gradient is a view that is conjugated only when it is read."""
    return Example(Adjoint(), (torch.randn(5, 4, dtype=torch.complex64),))


@_exhibit
def sparse_embedding() -> Example:
    """An embedding whose gradient is sparse and not coalesced, as tokens repeat."""
    model = nn.Sequential(nn.Embedding(50, 4, sparse=True), nn.Linear(4, 2))
    return Example(model, (torch.tensor([[3, 3, 7], [3, 9, 7]]),))


class UnusedHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.used, self.unused = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(torch.tanh(self.body(x)))


@_exhibit
def unused_head() -> Example:
    """A head that no loss reaches."""
    return Example(UnusedHead(), (torch.randn(5, 4),))


@_exhibit
def weight_norm() -> Example:
    """A parametrized layer, whose parameters live in modules of their own."""
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 8)), nn.Tanh(), nn.Linear(8, 2))
    return Example(model, (torch.randn(5, 4),))


@_exhibit
def spectral_norm() -> Example:
    """A parametrization with buffers of its own."""
    model = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 2, 1))
    return Example(model, (torch.randn(2, 3, 5, 5),))


def _old_reparametrization(function: Callable[[nn.Module], nn.Module]) -> Example:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still met
        first = function(nn.Linear(4, 8))
    return Example(nn.Sequential(first, nn.Tanh(), nn.Linear(8, 2)), (torch.randn(5, 4),))


@_exhibit
def old_weight_norm() -> Example:
    """The weight_norm of before parametrizations, which puts weight_g and weight_v into the layer itself."""
    return _old_reparametrization(nn.utils.weight_norm)


@_exhibit
def old_spectral_norm() -> Example:
    """The spectral_norm of before parametrizations."""
    return _old_reparametrization(nn.utils.spectral_norm)


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.blocks[0](x))
        for block in self.blocks[1:]:
            x = checkpoint(block, torch.tanh(x), use_reentrant=self.use_reentrant)
        return x


@_exhibit
def checkpointed() -> Example:
    """Activations that the backward computes again."""
    return Example(Checkpointed(use_reentrant=False), (torch.randn(5, 4),))


@_exhibit
def checkpointed_reentrant() -> Example:
    """The same by a backward within the backward."""
    return Example(Checkpointed(use_reentrant=True), (torch.randn(5, 4),))


@_exhibit
def quantised_body() -> Example:
    """A dynamically quantised layer, which has no parameters, under a head that trains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is deprecated, and still met
        body = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 8)), {nn.Linear})
    return Example(nn.Sequential(body, nn.ReLU(), nn.Linear(8, 2)), (torch.randn(5, 4),))


@_exhibit
def quantisation_aware() -> Example:
    """Weights and activations rounded in the forward, and trained as if they were not."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = torch.ao.quantization.get_default_qat_qconfig()
        model = torch.ao.quantization.prepare_qat(model)
    return Example(model, (torch.randn(5, 4),))


class Float8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8).to(torch.float8_e4m3fn))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x @ self.weight.float()))


@_exhibit
def float8_parameter() -> Example:
    """A parameter, and so a gradient, of a dtype without arithmetic."""
    return Example(Float8(), (torch.randn(5, 4),))


@_exhibit
def lazy_layers() -> Example:
    """Layers that learn their shape from the first batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that lazy modules are new
        model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))
    return Example(model, (torch.randn(5, 4),))


@_exhibit
def shared_module() -> Example:
    """One module at two places, called twice."""
    shared = nn.Linear(6, 6)
    return Example(nn.Sequential(shared, nn.Tanh(), nn.Sequential(shared, nn.Linear(6, 2))), (torch.randn(5, 6),))


@_exhibit
def script_module() -> Example:
    """A scripted model, whose parameters live outside Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still met
        model = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)))
    return Example(model, (torch.randn(5, 4),))


@_exhibit
def data_parallel() -> Example:
    """A wrapper that puts "module." before every name."""
    inner, inputs, _ = mlp()
    return Example(nn.DataParallel(inner), inputs, wrappers=("module.",))


@_exhibit
def averaged_model() -> Example:
    """The running average of a model, trained itself."""
    inner, inputs, _ = mlp()
    return Example(AveragedModel(inner), inputs, wrappers=("module.",))


@_exhibit
def compiled_submodule() -> Example:
    """A compiled layer inside a wrapped model: two wrappers, of which one is inside."""
    model = nn.Sequential(torch.compile(nn.Linear(4, 8), backend="eager"), nn.Tanh(), nn.Linear(8, 2))
    return Example(nn.DataParallel(model), (torch.randn(5, 4),), wrappers=("module.", "_orig_mod."))


class NamedModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


@_exhibit
def child_called_module() -> Example:
    """A child that is called "module" without its parent being a wrapper: the name stays."""
    return Example(NamedModule(), (torch.randn(5, 4),))


@_exhibit
def odd_names() -> Example:
    """Names with spaces, slashes, other alphabets and 300 characters."""
    model = nn.Sequential()
    for name in ("a layer", "schicht/ü", "层", "x" * 300):
        model.add_module(name, nn.Linear(4, 4))
        model.add_module(f"{name} tanh", nn.Tanh())
    return Example(model, (torch.randn(5, 4),))


class RootParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.register_parameter("shift", None)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.scale * x)


@_exhibit
def root_parameter() -> Example:
    """A parameter on the model itself, and one that is None."""
    return Example(RootParameter(), (torch.randn(5, 4),))


@_exhibit
def bare_layer() -> Example:
    """A model that is one layer."""
    return Example(nn.Linear(4, 3), (torch.randn(5, 4),))


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ParameterList([nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))])
        self.dict = nn.ParameterDict({"gain": nn.Parameter(torch.randn(4))})

    def forward(self, x: Tensor) -> Tensor:
        return x * self.list[0] + self.list[1] * self.dict["gain"]


@_exhibit
def parameter_containers() -> Example:
    """A ParameterList and a ParameterDict."""
    return Example(Parts(), (torch.randn(5, 4),))


class MixedPrecision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bf16 = nn.Linear(4, 8, dtype=torch.bfloat16)
        self.fp64 = nn.Linear(8, 8, dtype=torch.float64)
        self.fp16 = nn.Linear(8, 8, dtype=torch.float16)
        self.fp32 = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fp64(self.bf16(x.bfloat16()).double())
        return self.fp32(self.fp16(x.half()).float().tanh())


@_exhibit
def mixed_dtypes() -> Example:
    """Four precisions in one model."""
    return Example(MixedPrecision(), (torch.randn(5, 4),))


@_exhibit
def wide_layer() -> Example:
    """A layer large enough to be measured row by row, and not a whole number of rows."""
    return Example(nn.Sequential(nn.Linear(301, 300), nn.Tanh(), nn.Linear(300, 2)), (torch.randn(4, 301),))


class BuffersOnly(nn.Module):
    """Nothing to train; not in the gallery, as nothing can be watched."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.ones(3))
        self.norm = nn.BatchNorm1d(3, affine=False)


class Unmaterialised(nn.Module):
    """A layer on the meta device, with shapes and no numbers, until it is materialised; not in the gallery, as its
    parameters are not watched before."""

    def __init__(self) -> None:
        super().__init__()
        self.later = nn.Linear(4, 4, device="meta")
        self.now = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.now(x if self.later.weight.is_meta else self.later(x))
