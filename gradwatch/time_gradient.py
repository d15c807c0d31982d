"""The gradient that reaches each time step of a recurrent layer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gradwatch.stats import wide

MIN_STEPS = 8
"""Time steps below which there is no early quarter worth a comparison."""

MIN_SEQUENCES = 4
"""Of a batch, below which it may well be that a loss is about one of them."""

_RECURRENT = {kind.forward for kind in (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)}
"""torch's own: what a class with a forward of its own takes, and does with it, is not known."""


class AlongTime(NamedTuple):
    """What one step showed of a recurrent layer; NaN of what is not known."""

    time_ratio: float
    """The largest gradient of the early time steps to the largest of all."""
    time_gain: float
    """The same per time step between the two: the geometric mean, 1 where the largest is an early one."""
    steps_read: float
    """How many time steps get a gradient, or lie before one that does: up to the last one whose output is used."""
    sequences_read: float
    """How many sequences there are from the first one that gets one on: 1 where it is the last one alone."""


class _Heard(NamedTuple):
    """What came to the input of one call, on the device."""

    norms: Tensor
    """[T], of the time steps."""
    sequences: Tensor | None
    """0-dim, how many sequences there are from the first one with a gradient on; None where that is not known."""


class TimeGradient:
    """Listens, in one step, to the gradients with respect to what recurrent modules are given.

    With n_t the L2 norm of the loss's gradient with respect to the input of time step t, over batch and features, the
    ratio is that of the largest n_t of the first quarter of the time steps to the largest of all. Calls are joined in
    their order, which for a cell are the time steps, until the first gradient arrives; calls that none arrives at do
    not count. NaN for fewer than MIN_STEPS time steps, and for a gradient that is 0 or not finite. What is read of them
    is known of a single call that is given MIN_SEQUENCES whole sequences or more, which are not packed.

    Example:
        >>> rnn, seen = nn.RNN(1, 4), TimeGradient()
        >>> handle = rnn.register_forward_pre_hook(partial(seen.listen, 0), with_kwargs=True)
        >>> rnn(torch.ones(8, 4, 1))[0][0, -1].sum().backward()  # the first time step's of the last sequence
        >>> seen.take()
        {0: AlongTime(time_ratio=1.0, time_gain=1.0, steps_read=1.0, sequences_read=1.0)}
    """

    def __init__(self) -> None:
        self._order = count()
        self._calls: dict[int, dict[int, _Heard]] = {}
        """Of each row, by their order."""

    def listen(
        self, row: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """As a forward pre-hook of a recurrent module: put an input in place that tells the norms of its gradient."""
        calls = self._calls.setdefault(row, {})
        if calls:
            return None  # another forward pass, of the same step: gradients are accumulated
        given = args[0] if args else kwargs["input"]
        packed = isinstance(given, PackedSequence)
        x = _own(given.data if packed else given, module)
        if x is None:
            return None
        cell = isinstance(module, nn.RNNCellBase)
        time = None if cell else int(module.batch_first and x.ndim == 3)
        batch_sizes = given.batch_sizes.tolist() if packed else None
        batch = None if time is None or packed or x.ndim < 3 or x.shape[1 - time] < MIN_SEQUENCES else 1 - time
        hear = partial(_hear, calls, next(self._order), time, batch, batch_sizes)
        x.register_hook(hear)  # type: ignore[no-untyped-call]
        own = PackedSequence(x, *given[1:]) if packed else x
        return ((own, *args[1:]), kwargs) if args else (args, {**kwargs, "input": own})

    def take(self) -> dict[int, AlongTime]:
        """What was heard of each row, from the device."""
        return {row: _along_time([calls[call] for call in sorted(calls)]) for row, calls in self._calls.items()}


def is_one_way(module: nn.Module) -> bool:
    """Whether it is a recurrent module that goes through time in one direction, as torch's own do."""
    return getattr(type(module), "forward", None) in _RECURRENT and not getattr(module, "bidirectional", False)


def time_ratio(norms: Sequence[float]) -> tuple[float, float]:
    """The largest of the first quarter of ``norms`` to the largest of all, and the same per time step between them.

    >>> time_ratio([0.25, 0.125, 0, 0, 4.0, 0, 0, 0.5])
    (0.0625, 0.5)
    """
    n = np.asarray(norms, np.float64)
    if len(n) < MIN_STEPS or not np.isfinite(n).all() or not n.any():
        return float("nan"), float("nan")
    early, largest = int(n[: len(n) // 4].argmax()), int(n.argmax())
    ratio = float(n[early] / n[largest])
    return ratio, ratio ** (1 / max(largest - early, 1))


def step_norms(gradient: Tensor, time: int | None, batch_sizes: Sequence[int] | None = None) -> Tensor:
    """[T], the L2 norm of each time step, on the device.

    Args:
        gradient: with respect to the input of a recurrent module.
        time: the dimension of time, None where all is one time step.
        batch_sizes: of packed sequences, how many there are at each time step.

    >>> step_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), time=0).tolist()
    [5.0, 2.0]
    """
    dtype = wide(gradient)
    if batch_sizes is not None:
        return torch.stack(torch._foreach_norm(list(torch.split(gradient, list(batch_sizes))), 2, dtype))
    if time is None:
        norm: Tensor = torch.linalg.vector_norm(gradient, dtype=dtype)
        return norm.view(1)
    others = [d for d in range(gradient.ndim) if d != time]
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=others, dtype=dtype)
    return norms


def _own(x: Tensor, module: nn.Module) -> Tensor | None:
    """``x`` as a tensor that the user does not have, and whose gradient is computed."""
    if x.requires_grad:
        # A leaf that is used often is cast once under autocast, views of it each time: that would round differently.
        return None if x.is_leaf and torch.is_autocast_enabled(x.device.type) else x.view_as(x)
    if not x.is_floating_point() or not any(p.requires_grad for p in module.parameters()):
        return None  # the output would require a gradient that it does not without hooks
    leaf = x.detach().requires_grad_()
    leaf.register_post_accumulate_grad_hook(_drop_gradient)  # type: ignore[no-untyped-call]
    return leaf.view_as(leaf)  # no leaf, which autocast would keep


def _hear(
    calls: dict[int, _Heard],
    call: int,
    time: int | None,
    batch: int | None,
    batch_sizes: Sequence[int] | None,
    gradient: Tensor,
) -> None:
    """As a hook of that input: the first gradient of a call counts."""
    if torch.compiler.is_compiling() or call in calls:
        return
    with contextlib.suppress(Exception), torch.no_grad():
        g = gradient.detach()
        sequences = None
        if batch is not None:
            sequences = g.shape[batch] - g.transpose(0, batch).flatten(1).any(1).int().argmax()
        calls[call] = _Heard(step_norms(g, time, batch_sizes), sequences)


def _along_time(calls: Sequence[_Heard]) -> AlongTime:
    norms = [norm for call in calls for norm in call.norms.tolist()]
    ratio, gain = time_ratio(norms)
    sequences = calls[0].sequences if len(calls) == 1 else None
    if sequences is None or np.isnan(ratio):
        return AlongTime(ratio, gain, np.nan, np.nan)
    return AlongTime(ratio, gain, float(np.flatnonzero(norms)[-1] + 1), float(sequences))


def _drop_gradient(leaf: Tensor) -> None:
    leaf.grad = None  # nobody reads it, and it is as large as the input
