"""What reaches the time steps of a recurrent layer, against the gradient that autograd gives for its input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradwatch.time_gradient import MIN_SEQUENCES, MIN_STEPS, TimeGradient, step_norms, time_ratio
from tests.tensors import INF, NAN, normal


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([1.0] * 7, (NAN, NAN)),
        ([0.5] + [1.0] * 7, (1.0, 1.0)),
        ([0.5, 0.25] + [1.0] * 7, (0.5, 0.5**0.5)),
        ([0.01] * 2 + [0.1, 0.1, 0.1, 1.0] + [0.1] * 2, (0.01, 0.01 ** (1 / 5))),
        ([2.0] + [1.0] * 11, (1.0, 1.0)),
        ([0.0] * 9, (NAN, NAN)),
        ([1.0] * 9 + [NAN], (NAN, NAN)),
        ([1.0] * 9 + [INF], (NAN, NAN)),
        ([], (NAN, NAN)),
    ],
)
def test_time_ratio(norms: list[float], expected: tuple[float, float]) -> None:
    assert time_ratio(norms) == pytest.approx(expected, nan_ok=True)


def test_step_norms() -> None:
    gradient = normal(5, 3, 2)
    assert step_norms(gradient, time=None).tolist() == pytest.approx([float(gradient.double().norm())])
    for time in (0, 1):
        expected = gradient.double().movedim(time, 0).flatten(1).norm(dim=1).tolist()
        assert step_norms(gradient, time).tolist() == pytest.approx(expected, rel=1e-12)
    packed = step_norms(gradient[:, 0], time=0, batch_sizes=[3, 2])
    assert packed.tolist() == pytest.approx([float(g.double().norm()) for g in (gradient[:3, 0], gradient[3:, 0])])
    assert step_norms(torch.full((1, 4), 1e-30), time=0).tolist() == pytest.approx([2e-30])


def read(rnn: nn.Module, x: Any, loss: Callable[[Tensor], Tensor], times: int = 1) -> tuple[float, float]:
    """How many steps and sequences are read in a step that calls ``rnn`` some times."""
    seen = TimeGradient()
    handle = rnn.register_forward_pre_hook(partial(seen.listen, 0), with_kwargs=True)
    sum(loss(rnn(x)[0]) for _ in range(times)).backward()  # type: ignore[union-attr]
    handle.remove()
    found = seen.take()[0]
    return found.steps_read, found.sequences_read


USES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = {
    "all": (Tensor.sum, (12.0, 6.0)),
    "the last step": (lambda y: y[-1].sum(), (12.0, 6.0)),
    "the first step": (lambda y: y[0].sum(), (1.0, 6.0)),
    "some step": (lambda y: y[4].sum(), (5.0, 6.0)),
    "the last sequence": (lambda y: y[:, -1].sum(), (12.0, 1.0)),
    "the fourth and the last of them at two steps": (lambda y: y[3, 3].sum() + y[7, 5].sum(), (8.0, 3.0)),
    "the first of them": (lambda y: y[:, 0].sum(), (12.0, 6.0)),
    "nothing": (lambda y: 0 * y.sum(), (NAN, NAN)),
}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("use", USES)
def test_what_is_read(use: str, kind: type[nn.RNNBase], batch_first: bool) -> None:
    loss, expected = USES[use]
    x, turn = normal(12, 6, 3), partial(torch.transpose, dim0=0, dim1=1) if batch_first else lambda y: y
    rnn = kind(3, 4, num_layers=2, batch_first=batch_first)  # type: ignore[call-arg, arg-type]
    assert read(rnn, turn(x), lambda y: loss(turn(y))) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("value", [NAN, INF])
def test_gradients_that_are_not_finite_tell_nothing(value: float) -> None:
    assert read(nn.GRU(3, 4), normal(12, 6, 3), lambda y: value * y[0].sum()) == pytest.approx((NAN, NAN), nan_ok=True)


@pytest.mark.parametrize(
    ("shape", "times"),
    [
        ((12, MIN_SEQUENCES - 1, 3), 1),
        ((MIN_STEPS - 1, 6, 3), 1),
        ((12, 3), 1),  # a single sequence
        ((12, 6, 3), 2),  # it may go on where it was
    ],
)
def test_of_few_sequences_or_steps_and_of_several_calls_it_is_not_known(shape: tuple[int, ...], times: int) -> None:
    assert read(nn.GRU(3, 4), normal(*shape), Tensor.sum, times) == pytest.approx((NAN, NAN), nan_ok=True)


def test_of_packed_sequences_it_is_not_known() -> None:
    packed = nn.utils.rnn.pack_padded_sequence(normal(12, 6, 3), [12] * 6)
    found = read(nn.GRU(3, 4), packed, lambda y: y.data.sum())
    assert found == pytest.approx((NAN, NAN), nan_ok=True)
