"""The spine: it loses nothing on any architecture, and each region is called what it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gradwatch.flow import flow
from gradwatch.probing import Probe
from gradwatch.profile import BackwardProfile, Operation, Segment
from gradwatch.spine import spine
from tests.models import GALLERY, build
from tests.tensors import normal, reference

D = 6


def profiled(model: nn.Module, *inputs: Tensor) -> tuple[BackwardProfile, float]:
    """The profile of a step, and by torch's own gradients the log of the squared gain from the output to the input."""
    inputs = tuple(x.clone().requires_grad_() if x.is_floating_point() or x.is_complex() else x for x in inputs)
    microscope = Probe(model)
    microscope.arm()
    out = model(*inputs)
    out.retain_grad()
    (out.abs() - 0.5).square().mean().backward()
    profile = microscope.take()
    assert profile is not None
    [given] = [x.grad for x in inputs if x.is_floating_point() or x.is_complex()]
    return profile, 2 * math.log(reference(given) / reference(out.grad))


def kinds(segments: tuple[Segment, ...]) -> str:
    """In words: residual blocks with their branches in brackets."""
    words = []
    for s in segments:
        branches = " | ".join(kinds(branch.segments) for branch in s.branches)
        words.append(f"{s.kind}({branches})" if s.branches else s.kind)
    return " ".join(words)


# Architectures


class Branches(nn.Module):
    """``forward`` is a function of the input and of ``count`` linear layers."""

    def __init__(self, function: Callable[..., Tensor], count: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(D, D) for _ in range(count))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def post_norm(x: Tensor, f: nn.Module) -> Tensor:
    return F.layer_norm(x + torch.tanh(f(x)), (D,))


def attention(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module, out: nn.Module) -> Tensor:
    return out(torch.softmax(q(x) @ k(x).mT / D**0.5, -1) @ v(x))


def fused_attention(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module) -> Tensor:
    return F.scaled_dot_product_attention(q(x)[None], k(x)[None], v(x)[None])[0]


def side_by_side(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    """As GPT-J."""
    normed = F.layer_norm(x, (D,))
    return x + f(normed) + torch.relu(g(normed))


def two_branches(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    return x + torch.tanh(f(x)) + torch.sigmoid(g(x))


def gelu_by_hand(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))


def rms_by_hand(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def highway(x: Tensor, f: nn.Module, gate: nn.Module) -> Tensor:
    t = torch.sigmoid(gate(x))
    return torch.relu(f(x)) * t + x * (1 - t)


def dense(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    y = torch.cat([x, torch.relu(f(x))])
    return torch.cat([y, torch.relu(g(y))])


def downsampled(x: Tensor, f: nn.Module, g: nn.Module, skip: nn.Module) -> Tensor:
    return torch.relu(g(torch.relu(f(x))) + skip(x))


def long_skip(x: Tensor, down: nn.Module, inner: nn.Module, up: nn.Module) -> Tensor:
    """A U-Net that adds."""
    y = torch.relu(down(x))
    return x + up(y + torch.relu(inner(y)))


ARCHITECTURES: dict[str, tuple[Callable[..., Tensor], int, str]] = {
    "plain": (lambda x, f, g: g(torch.tanh(f(x))), 2, "weight activation weight"),
    "shapes": (lambda x, f: f(x.T.reshape(x.shape))[:, None].squeeze().view(-1), 1, "weight"),
    "part": (lambda x, f: f(x[:, :, None].squeeze(-1))[:3].flip(0), 1, "weight"),
    "broadcast": (lambda x: x.sum(-1, keepdim=True).expand(-1, D) + 0, 0, "other pool"),
    "residual": (lambda x, f: x + torch.tanh(f(x)), 1, "residual(activation weight)"),
    "other way round": (lambda x, f: f(x) + x, 1, "residual(weight)"),
    "scaled skip": (lambda x, f: 0.7 * x + torch.tanh(f(x)), 1, "residual(activation weight)"),
    "scaled branch": (lambda x, f: x - 0.1 * torch.tanh(f(x)), 1, "residual(multiply activation weight)"),
    "post-norm": (post_norm, 1, "norm residual(activation weight)"),
    "two branches": (two_branches, 2, "residual(activation weight | activation weight)"),
    "side by side": (side_by_side, 2, "residual(residual(activation weight) norm)"),
    "block in block": (long_skip, 3, "residual(weight residual(activation weight) activation weight)"),
    "downsampled": (downsampled, 3, "activation residual(weight activation weight)"),
    "attention": (attention, 4, "weight attention"),
    "fused attention": (fused_attention, 3, "attention"),
    "gelu by hand": (lambda x, f: gelu_by_hand(f(x)), 1, "activation weight"),
    "swish by hand": (lambda x, f: f(x) * torch.sigmoid(f(x)), 1, "multiply"),
    "swish of one": (lambda x: x * torch.sigmoid(x), 0, "activation"),
    "rms norm by hand": (lambda x, f: rms_by_hand(f(x)), 1, "norm weight"),
    "normalised": (lambda x, f: F.normalize(f(x)), 1, "norm weight"),
    "softmax": (lambda x: torch.softmax(x, -1), 0, "attention"),
    "SwiGLU": (lambda x, f, g, h: h(F.silu(f(x)) * g(x)), 3, "weight multiply"),
    "squeeze and excite": (lambda x, f, g: x * torch.sigmoid(g(torch.relu(f(x.mean(0))))), 2, "multiply"),
    "highway": (highway, 2, "multiply"),
    "square": (lambda x, f: f(x) * f(x), 1, "multiply"),
    "sum of two": (lambda x, f, g: f(x) + g(x), 2, "parallel"),
    "dense": (dense, 2, "parallel parallel"),
    "inception": (lambda x, f, g: torch.cat([torch.relu(f(x)), g(x)]), 2, "parallel"),
    "a skip over it all": (lambda x, f, g: torch.cat([x, g(torch.relu(f(x)))]), 2, "parallel"),
    "dropout": (lambda x, f: F.dropout(f(x), 0.5), 1, "multiply weight"),
    "log-softmax": (lambda x, f: torch.log_softmax(f(x), -1), 1, "loss weight"),
    "pooled": (lambda x, f: F.max_pool1d(f(x)[None], 2)[0], 1, "pool weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_region_is_called_what_it_is_and_nothing_is_lost(name: str) -> None:
    torch.manual_seed(0)
    function, count, expected = ARCHITECTURES[name]
    profile, log_gain = profiled(Branches(function, count), normal(5, D))
    assert kinds(profile.segments) == expected
    assert profile.log_gain == pytest.approx(log_gain, abs=1e-4)


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.parametrize(
    "name", sorted(GALLERY.keys() - {"script_module", "quantised_body", "gpt", "sparse_embedding"})
)
def test_nothing_is_lost_on_any_model_of_the_gallery(name: str) -> None:
    example = build(name)
    profile, log_gain = profiled(example.model, *example.inputs)
    assert profile.log_gain == pytest.approx(log_gain, abs=1e-4)
    assert profile.segments


@pytest.mark.parametrize(("name", "deepest"), [("gpt", "wte"), ("sparse_embedding", "0")])
def test_nor_of_those_that_begin_with_words(name: str, deepest: str) -> None:
    example = build(name)
    kept: list[Tensor] = []
    example.model.get_submodule(deepest).register_forward_hook(lambda _module, _args, out: kept.append(out))
    example.model.register_forward_hook(lambda _module, _args, out: kept.append(out))
    microscope = Probe(example.model)
    microscope.arm()
    example.model(*example.inputs)
    bottom, top = kept
    bottom.retain_grad()
    top.retain_grad()
    top.square().mean().backward()
    profile = microscope.take()
    assert profile is not None
    expected = 2 * math.log(reference(bottom.grad) / reference(top.grad))
    assert profile.log_gain == pytest.approx(expected, abs=1e-4)


def test_a_transformer_is_its_blocks() -> None:
    example = build("gpt")
    microscope = Probe(example.model)
    microscope.arm()
    example.model(*example.inputs).square().mean().backward()
    profile = microscope.take()
    assert profile is not None
    mlp, attn = "weight activation weight norm", "weight attention weight norm"
    assert kinds(profile.segments) == f"weight norm residual({mlp}) residual({attn}) residual({mlp}) residual({attn})"
    assert [s.layer for s in profile.segments] == ["lm_head", "ln_f", "h.1", "h.1", "h.0", "h.0"]
    assert profile.depth == 5


# Residual blocks


def test_a_block_is_told_apart_exactly() -> None:
    torch.manual_seed(0)
    model, x = Branches(lambda x, f: x + torch.tanh(f(x)), 1), normal(3, D).requires_grad_()
    microscope = Probe(model)
    microscope.arm()
    gradient = normal(3, D, seed=1)
    model(x).backward(gradient)
    profile = microscope.take()
    assert profile is not None
    [segment] = profile.segments
    branch = (gradient * (1 - torch.tanh(model.layers[0](x)) ** 2)) @ model.layers[0].weight
    size = reference(gradient) ** 2
    assert segment.skip == pytest.approx(1, rel=1e-6)
    assert [b.gain for b in segment.branches] == pytest.approx([reference(branch) ** 2 / size], rel=1e-5)
    assert segment.gain == pytest.approx(reference(gradient + branch) ** 2 / size, rel=1e-5)
    assert (segment.layer, segment.operation) == ("Branches", "Add")
    assert math.prod(s.gain for s in segment.branches[0].segments) == pytest.approx(segment.branches[0].gain, rel=1e-5)


@pytest.mark.parametrize("scale", [0.25, 1.0, 2.0])
def test_a_scaled_skip_passes_the_square_of_its_scale(scale: float) -> None:
    profile, _ = profiled(Branches(lambda x, f: scale * x + torch.tanh(f(x)), 1), normal(5, D))
    assert profile.segments[0].skip == pytest.approx(scale**2, rel=1e-5)


def test_a_branch_that_passes_nothing_is_still_there() -> None:
    """As at the start of ReZero, and of what begins with weights of zero."""
    profile, log_gain = profiled(Branches(lambda x, f: x + 0 * torch.tanh(f(x)), 1), normal(5, D))
    [segment] = profile.segments
    [branch] = segment.branches
    assert (segment.kind, branch.gain, log_gain) == ("residual", 0, pytest.approx(0, abs=1e-6))
    assert [s.gain for s in branch.segments] == [0]
    assert profile.depth == 1


def test_blocks_within_branches_are_told_apart_down_to_some_depth_only() -> None:
    def nested(x: Tensor, f: nn.Module, depth: int = 40) -> Tensor:
        return x + nested(torch.tanh(x), f, depth - 1) if depth else f(x)

    profile, log_gain = profiled(Branches(nested, 1), normal(5, D))
    assert profile.log_gain == pytest.approx(log_gain, abs=1e-4)


# Ends


def test_where_the_gradient_becomes_zero_the_spine_ends() -> None:
    model = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 1))
    nn.init.constant_(model[0].bias, -1e3)
    x = normal(5, D).requires_grad_()
    microscope = Probe(model)
    microscope.arm()
    model(x).sum().backward()
    profile = microscope.take()
    assert profile is not None
    assert kinds(profile.segments) == "weight activation weight activation"
    assert profile.segments[-1].gain == 0
    assert profile.log_gain == -math.inf


def test_a_loss_of_zero_leaves_no_spine() -> None:
    model = nn.Linear(D, D)
    microscope = Probe(model)
    microscope.arm()
    (0 * model(normal(5, D)).sum()).backward()
    profile = microscope.take()
    assert profile is not None
    assert profile.segments == ()


def test_what_is_not_finite_stays_so() -> None:
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D))
    microscope = Probe(model)
    microscope.arm()
    (math.nan * model(normal(5, D)).sum()).backward()
    profile = microscope.take()
    assert profile is not None
    assert kinds(profile.segments) == "weight activation"
    assert math.isnan(profile.log_gain)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D), nn.Tanh())
        self.a, self.b = nn.Linear(D, 1), nn.Linear(D, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.body(x)
        return self.a(hidden), self.b(hidden), hidden


def spine_of_heads(loss: Callable[..., Tensor]) -> list[str]:
    torch.manual_seed(0)
    model = Heads()
    microscope = Probe(model)
    microscope.arm()
    loss(*model(normal(5, D))).backward()
    profile = microscope.take()
    assert profile is not None
    return [s.layer for s in profile.segments]


BODY = ["body.3", "body.2", "body.1"]


def test_several_outputs_meet_where_the_spine_begins() -> None:
    assert spine_of_heads(lambda a, b, _: a.sum() + b.sum()) == BODY
    assert spine_of_heads(lambda a, b, _: a.sum()) == ["a", *BODY]
    assert spine_of_heads(lambda a, b, _: a.sum() + 0 * b.sum()) == ["a", *BODY]  # no gradient comes from there


def test_so_does_one_that_is_used_inside_and_outside() -> None:
    assert spine_of_heads(lambda a, _, hidden: a.sum() + 9 * hidden.sum()) == BODY
    assert spine_of_heads(lambda _a, _b, hidden: hidden.sum()) == BODY


# Cost


def test_it_takes_time_in_proportion_to_the_operations() -> None:
    """Of recurrent networks too, where one tensor is used at every step."""

    def chain(steps: int) -> tuple[Operation, ...]:
        found = [Operation(0, "Unbind", "shape", "rnn", 0, (None,), 1.0)]
        for t in range(steps):
            inputs = ((0, t), (3 * t, 0)) if t else ((0, t), None)
            found.append(Operation(3 * t + 1, "Add", "add", "rnn", 0, inputs, 1.0, (1.0, 1.0)))
            found.append(Operation(3 * t + 2, "Tanh", "activation", "rnn", 0, ((3 * t + 1, 0),), 0.9, (1.0,)))
            found.append(Operation(3 * t + 3, "Mm", "weight", "rnn", 0, ((3 * t + 2, 0), None), 0.8, (0.9, 0.0)))
        return tuple(found)

    def seconds(steps: int) -> float:
        operations = chain(steps)
        taken = []
        for _ in range(3):
            begin = time.perf_counter()
            segments = spine(flow(operations))
            taken.append(time.perf_counter() - begin)
        assert [s.kind for s in segments] == ["weight", "activation", "parallel"]
        return min(taken)

    assert seconds(8000) < 40 * seconds(1000)  # 64 times if every step cost as much as all before it
