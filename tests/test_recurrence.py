"""Time steps: found in every way to write a recurrent network, and measured without what losses in between add."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from gradwatch.probing import Probe
from gradwatch.profile import TimeSteps
from tests.tensors import normal, reference

T, D, H = 6, 3, 4

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")


@pytest.fixture(autouse=True)
def _no_fused_kernels() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def steps_of(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[TimeSteps, ...]:
    microscope = Probe(model)
    microscope.arm()
    loss().backward()
    profile = microscope.take()
    assert profile is not None
    return profile.time_steps


def told(found: tuple[TimeSteps, ...]) -> list[tuple[str, str, int]]:
    return [(t.layer, t.path, len(t.gains)) for t in found]


class ByHand(nn.Module):
    """The recurrence that people write themselves."""

    def __init__(self, joined: bool = False) -> None:
        super().__init__()
        self.joined = joined
        self.i2h, self.h2h = nn.Linear(D + H * joined, H), nn.Linear(H, H)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], H)
        for step in x:
            if self.joined:
                h = torch.tanh(self.i2h(torch.cat([step, h], 1)))
            else:
                h = torch.tanh(self.i2h(step) + self.h2h(h))
        return h


class Stacked(nn.Module):
    """Two cells that take turns, with or without a loss at every step."""

    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.lower, self.upper = kind(D, H), kind(H, H)

    def forward(self, x: Tensor) -> Tensor:
        low = high = None
        outputs = []
        for step in x:
            low = self.lower(step, low)
            high = self.upper(low[0] if isinstance(low, tuple) else low, high)
            outputs.append(high[0] if isinstance(high, tuple) else high)
        return torch.stack(outputs)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.RNN(D, H), [("RNN", "hidden", T - 1)]),
        (lambda: nn.RNN(D, H, num_layers=2, nonlinearity="relu"), [("RNN", "hidden", T - 1)] * 2),
        (lambda: nn.RNN(D, H, bidirectional=True), [("RNN", "hidden", T - 1)] * 2),
        (lambda: nn.GRU(D, H), [("GRU", "hidden", T - 1)]),
        (lambda: nn.LSTM(D, H), [("LSTM", "hidden", T - 1), ("LSTM", "cell", T - 1)]),
        (lambda: ByHand(), [("h2h", "hidden", T - 1)]),
        (lambda: ByHand(joined=True), [("i2h", "hidden", T - 1)]),
        (lambda: Stacked(nn.RNNCell), [("upper", "hidden", T - 1), ("lower", "hidden", T - 1)]),
        (lambda: Stacked(nn.GRUCell), [("upper", "hidden", T - 1), ("lower", "hidden", T - 1)]),
        (
            lambda: Stacked(nn.LSTMCell),
            [(layer, path, T - 1) for layer in ("upper", "lower") for path in ("hidden", "cell")],
        ),
    ],
)
def test_they_are_found(make: Callable[[], nn.Module], expected: list[tuple[str, str, int]]) -> None:
    model = make()
    for x in (normal(T, 2, D), normal(T, 2, D).requires_grad_()):

        def loss(x: Tensor = x) -> Tensor:
            out = model(x)
            return (out[0] if isinstance(out, tuple) else out).square().sum()

        assert told(steps_of(model, loss)) == expected


@pytest.mark.parametrize("every", [False, True])
def test_gains_are_those_of_each_step_alone(every: bool) -> None:
    """By torch: the gradient of a step's output sent through the step by itself."""
    cell, x = nn.RNN(D, H), normal(T, 2, D)
    out = cell(x)[0].detach()
    out.requires_grad_()
    arriving = torch.zeros_like(out)
    expected, norms = [], []
    for t in reversed(range(T)):
        if every or t == T - 1:
            arriving[t] += 2 * out.detach()[t]
        norms.append(reference(arriving[t]))
        if t:
            before = out.detach()[t - 1 : t].requires_grad_()
            (sent,) = torch.autograd.grad(cell(x[t : t + 1], before)[0], before, arriving[t : t + 1])
            expected.append(reference(sent) ** 2 / norms[-1] ** 2)
            arriving[t - 1] += sent[0]

    def loss() -> Tensor:
        states = cell(x)[0]
        return (states if every else states[-1]).square().sum()

    [found] = steps_of(cell, loss)
    assert found.gains == pytest.approx(expected, rel=1e-4)
    assert found.grad_norm == pytest.approx(norms, rel=1e-4)


def test_what_goes_several_ways_through_a_step_is_whole_where_nothing_else_arrives() -> None:
    """A GRU's state is multiplied and kept: the gradient that arrives at the one before is that of both."""
    cell, x = nn.GRU(D, H), normal(T, 2, D)
    [found] = steps_of(cell, lambda: cell(x)[0][-1].square().sum())
    assert found.gains == pytest.approx((found.grad_norm[1:] / found.grad_norm[:-1]) ** 2, rel=1e-6)


def test_an_lstms_cell_is_multiplied_by_its_forget_gate() -> None:
    cell, x = nn.LSTM(D, 1), normal(T, 1, D)
    nn.init.zeros_(cell.weight_hh_l0)
    gates = x[:, 0] @ cell.weight_ih_l0.T + cell.bias_ih_l0 + cell.bias_hh_l0
    found = {t.path: t for t in steps_of(cell, lambda: cell(x)[0][-1].sum())}
    assert found["cell"].gains == pytest.approx(torch.sigmoid(gates[:, 1]).square().tolist()[:0:-1], rel=1e-5)
    assert found["hidden"].gains[0] == 0


class Deep(nn.Module):
    """One layer at every depth, which is no time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(H, H)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = torch.tanh(self.fc(x))
        return x


class Siamese(Deep):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) - self.fc(x + 1)


@pytest.mark.parametrize(
    "make", [Deep, Siamese, lambda: nn.Linear(H, H), lambda: nn.Sequential(*[nn.Linear(H, H)] * 3)]
)
def test_what_has_no_time_has_no_steps(make: Callable[[], nn.Module]) -> None:
    model = make()
    for x in (normal(5, H), normal(5, H).requires_grad_()):
        assert steps_of(model, lambda x=x: model(x).sum()) == ()  # type: ignore[misc]


def test_one_time_step_has_no_gain() -> None:
    cell = nn.RNN(D, H)
    assert steps_of(cell, lambda: cell(normal(1, 2, D))[0].sum()) == ()


def test_without_gradients_there_is_nothing_to_tell() -> None:
    cell = nn.RNN(D, H)
    assert steps_of(cell, lambda: 0 * cell(normal(T, 2, D))[0].sum()) == ()
