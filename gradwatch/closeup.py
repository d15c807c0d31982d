"""A close look at one training step: activations that are saturated, and gradients that do not reach early time steps.

Both need to see the inside of a forward and a backward pass, so for this one step there are hooks on a few modules.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.utils.rnn import PackedSequence

from gradwatch.inputs import input_shares
from gradwatch.last_output import LastOutput, wide
from gradwatch.layers import Place, join, places
from gradwatch.linear_range import linear_range
from gradwatch.records import FloatArray, Layer
from gradwatch.safe_hook import SafeHook
from gradwatch.torch_internals import in_transform

MODULES = 32
"""Of the modules with weights, how many are looked at for what they are given, evenly along the model."""

CALLS = 4
"""Of the calls of one of them in a step, how many; a layer may be called once per time step."""

NODES = 32
"""Of the autograd graph, how many are looked at to find the layer that feeds an activation."""

MIN_STEPS = 8
"""Time steps below which there is no early quarter worth a comparison."""

_RECURRENT = {kind.forward for kind in (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)}
"""torch's own: what a class with a forward of its own takes, and does with it, is not known."""

_NOT_GIVEN = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, torch.jit.ScriptModule)
"""Given indices, or sequences in any order; and what takes no hook."""

_UNWATCHED = -1
T = TypeVar("T")
_Counts: TypeAlias = "dict[int, tuple[Tensor | int, int]]"
_Norms: TypeAlias = "dict[int, dict[int, Tensor]]"
_Shares: TypeAlias = "dict[int, list[Tensor]]"


class CloseupStats(NamedTuple):
    """What one step showed of L layers."""

    saturated: FloatArray
    """float64 [L], of the bounded activations that a layer feeds, the share of outputs with nearly no derivative."""
    time_ratio: FloatArray
    """float64 [L], of a recurrent layer, the largest gradient of the early time steps to the largest of all."""
    time_gain: FloatArray
    """float64 [L], the same per time step between the two: the geometric mean, 1 where the largest is an early one."""
    variation: FloatArray
    """float64 [L], share of what a layer is given that differs from example to example."""
    variation_within: FloatArray
    """float64 [L], of a linear layer that is given a sequence, share that differs from place to place within one."""
    given_nothing: FloatArray
    """float64 [L], share of the examples of which a layer is given nothing but zeros."""
    output_gradient: float
    """L2 norm of the gradient with respect to the last layer's output."""
    output_error: float
    """Of a cross entropy, the error of its probabilities relative to the best constant prediction's."""
    loss_gradient: float
    """L2 norm of the gradient with respect to the model's own output, behind whatever follows its last layer."""
    output_variation: float
    """Share of that output that differs from example to example."""
    out_of_reach: float
    """Share of what the loss asks of it that lies beyond what the activation behind the last layer can give."""
    output_row: float
    """The row of that layer."""
    loss_mismatch: float
    """Place in ``MISTAKES`` of what a loss is given that it does not take."""


class Closeup:
    """Looks at one step: :meth:`arm` before its forward pass, :meth:`take` after its backward pass.

    The hooks are gone after that, and nothing of the user's is kept. They change no bit of training, and a failure in
    one of them is a NaN. What is not known is NaN, too: a layer that has nothing to look at; what runs without
    gradients, compiled, or with its saved tensors taken elsewhere (``checkpoint(..., use_reentrant=False)``,
    ``save_on_cpu``), where one tensor more or less may matter.

    ``saturated`` is of nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid and nn.Softsign: the share of outputs whose
    derivative is below 5% of the largest possible, over all calls that a layer's outputs go through, so that a layer
    that is used once per time step, or accumulates gradients, is judged by all of them.

    ``time_ratio`` is of torch's RNN, GRU, LSTM and their cells. With n_t the L2 norm of the loss's gradient with
    respect to the input of time step t, over batch and features, it is the largest n_t of the first quarter of the
    time steps to the largest of all, and ``time_gain`` that per time step. Calls are joined in their order, which for a
    cell are the time steps, until the first gradient arrives; calls that none arrives at do not count. NaN for fewer
    than 8 time steps, for a gradient that is 0 or not finite, and for bidirectional layers, whose two directions mix.

    ``output_gradient`` is the L2 norm of the loss's gradient with respect to the output of the layer nearest to the
    loss, see :class:`~gradwatch.last_output.LastOutput`: it tells how far the outputs are from where the loss wants
    them. A gradient scaler's scale is not divided out. NaN for a loss whose gradient has one size however far that is,
    as the mean absolute error's. ``output_error`` is what it says of a cross entropy's probabilities, see
    :func:`~gradwatch.output_error.output_error`. ``loss_gradient`` is the same norm with respect to what the model
    itself returns, behind whatever follows its last layer, ``output_variation`` how much of that differs, and
    ``out_of_reach`` how much of the gradient is lost on it, see :func:`~gradwatch.out_of_reach.out_of_reach`.
    ``loss_mismatch`` is what the gradient tells of the loss, see :func:`~gradwatch.loss_mismatch.loss_mismatch`.

    ``variation``, ``variation_within`` and ``given_nothing`` are of what a layer with a weight matrix or kernel is
    called with, see :func:`~gradwatch.inputs.input_shares`: of several calls the call whose examples differ most, of
    many layers MODULES of them. NaN for a single example, for indices, and for recurrent layers.

    Args:
        model: the module to look at; it is held by a weak reference.
        layers: the watched ones, as ``monitor.layers``.

    Example:
        >>> from gradwatch.layers import LayerTable
        >>> model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
        >>> closeup = Closeup(model, LayerTable(model).layers)
        >>> closeup.arm()
        >>> model(torch.full((2, 1), 1e6)).sum().backward()
        >>> stats = closeup.take()
        >>> stats.saturated.tolist(), stats.variation.tolist()
        ([1.0, nan], [0.0, 0.0])
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self._model = weakref.ref(model)
        self._layers = len(layers)
        self._row_of = {name: row for row, layer in enumerate(layers) for name in layer.parameters}
        self._activations: list[tuple[weakref.ref[nn.Module], tuple[float, float]]] = []
        self._recurrent: list[tuple[weakref.ref[nn.Module], int]] = []
        self._given: list[tuple[weakref.ref[nn.Module], int]] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._saturated: _Counts = {}
        self._norms: _Norms = {}
        self._shares: _Shares = {}
        self._last_output = LastOutput()
        self._dtypes: set[torch.dtype] = set()
        self.half: bool | None = None
        """Whether a layer computed in float16 in the step last taken; None where none was looked at."""
        for place in places(model):
            limits = linear_range(place.module)
            if limits is not None:
                self._activations.append((weakref.ref(place.module), limits))
            elif _is_one_way(place.module) and (row := self._row_below(place.path)) is not None:
                self._recurrent.append((weakref.ref(place.module), row))
            elif (row := self._row_of_weights(place)) is not None:
                self._given.append((weakref.ref(place.module), row))
        self._given = spread(self._given, MODULES)

    def arm(self, maximizes: bool = False) -> None:
        """Put hooks in place for the coming step; nothing where they are, or where there is nothing to look at.

        Args:
            maximizes: whether the optimizer makes the loss larger.
        """
        model = self._model()
        if self._handles or model is None:
            return
        rows, order = self._rows(model) if self._activations else {}, count()
        self._last_output.maximizes = maximizes
        for reference, limits in self._activations:
            if (module := reference()) is not None:
                look = partial(_count, self._saturated, rows, limits)
                self._handles.append(module.register_forward_hook(_hook(look), prepend=True))
        for reference, row in self._recurrent:
            if (module := reference()) is not None:
                listen = partial(_listen, self._norms.setdefault(row, {}), order)
                self._handles.append(module.register_forward_pre_hook(_hook(listen), with_kwargs=True))
        for number, (reference, _) in enumerate([*self._recurrent, *self._given]):
            if (module := reference()) is not None:
                hear = partial(self._last_output.listen, number)
                self._handles.append(module.register_forward_hook(_hook(hear)))
        if self._handles:
            self._handles.append(model.register_forward_hook(_hook(self._last_output.listen_to_all)))
        for reference, row in self._given:
            if (module := reference()) is not None:
                weigh = partial(_weigh, self._shares.setdefault(row, []), self._dtypes)
                self._handles.append(module.register_forward_pre_hook(_hook(weigh)))

    def take(self) -> CloseupStats:
        """What was seen since :meth:`arm`, from the device it is on; the hooks are removed."""
        saturated, norms, shares, last_output = self._saturated, self._norms, self._shares, self._last_output
        self.half = torch.float16 in self._dtypes if self._dtypes else None
        self.close()
        of_outputs: tuple[float, ...] = (np.nan,) * 7
        with contextlib.suppress(Exception):
            *of_values, number, mistake = last_output.take()
            rows = [row for _, row in (*self._recurrent, *self._given)]
            of_outputs = *of_values, rows[int(number)] if np.isfinite(number) else np.nan, mistake
        of_layers = np.full((len(CloseupStats._fields) - len(of_outputs), self._layers), np.nan)
        stats = CloseupStats(*of_layers, *of_outputs)
        for row, (flat, outputs) in saturated.items():
            with contextlib.suppress(Exception):
                stats.saturated[row] = int(flat) / outputs
        for row, calls in norms.items():
            with contextlib.suppress(Exception):
                found = time_ratio([n for i in sorted(calls) for n in calls[i].tolist()])
                stats.time_ratio[row], stats.time_gain[row] = found
        for row, given in shares.items():
            with contextlib.suppress(Exception):
                seen = _most_different(torch.stack(given).tolist()) if given else [np.nan] * 3
                stats.variation[row], stats.variation_within[row], stats.given_nothing[row] = seen
        return stats

    def close(self) -> None:
        """Remove the hooks and forget what they saw."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._saturated, self._norms, self._shares, self._dtypes = {}, {}, {}, set()
        self._last_output = LastOutput()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _row_below(self, path: str) -> int | None:
        """The row of the module at ``path``, whose parameters may lie in modules of a parametrization."""
        prefix = path and f"{path}."
        return next((row for name, row in self._row_of.items() if name.startswith(prefix)), None)

    def _row_of_weights(self, place: Place) -> int | None:
        """The row of the module's own matrix or kernel; None where it has none, or nothing but a table."""
        if isinstance(place.module, _NOT_GIVEN):
            return None
        own = (join(place.path, key) for key, p in place.module._parameters.items() if p is not None and p.ndim >= 2)
        return next((self._row_of[name] for name in own if name in self._row_of), None)

    def _rows(self, model: nn.Module) -> dict[int, int]:
        """The row of each parameter by its id, which is valid while the model holds it."""
        rows: dict[int, int] = {}
        for place in places(model):
            for key, p in place.module._parameters.items():
                row = self._row_of.get(join(place.path, key), _UNWATCHED)
                if row != _UNWATCHED or id(p) not in rows:
                    rows[id(p)] = row
        return rows


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


def feeding_row(output: Tensor, rows: Mapping[int, int]) -> int | None:
    """The row of the layer from whose parameters ``output`` was computed, as the autograd graph tells; None of none.

    Args:
        output: of an activation.
        rows: of each parameter of the model by its id, below 0 of one that is not watched.
    """
    queue: list[Any] = [output.grad_fn]
    for node in queue:  # it grows
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in rows:
            row = rows[id(variable)]
            return row if row >= 0 else None
        # A node written in Python may stand for many layers: a checkpoint, a compiled region.
        if node is not None and not isinstance(node, BackwardCFunction):
            # Weights come after what they are multiplied with, so they are found before an earlier layer's bias.
            queue += [before for before, _ in reversed(node.next_functions) if before is not None]
            del queue[NODES:]
    return None


def spread(values: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of ``values``, evenly, with the first and the last.

    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _hook(look: Callable[..., Any]) -> SafeHook:
    return SafeHook(partial(_plainly, look))


def _plainly(look: Callable[..., Any], *args: Any) -> Any:
    """``look(*args)``, in a plain forward pass only."""
    traced = torch.jit.is_tracing() or in_transform()  # type: ignore[attr-defined, no-untyped-call]
    if traced or not torch.is_grad_enabled() or _saved_tensors_are_taken():
        return None
    return look(*args)


def _saved_tensors_are_taken() -> bool:
    """Whether hooks for saved tensors are in place; a checkpoint's compares what is saved, now and when recomputed."""
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("gradwatch"):
            return False
    except RuntimeError:
        return True


def _count(
    seen: _Counts, rows: Mapping[int, int], limits: tuple[float, float], module: nn.Module, args: Any, output: Tensor
) -> None:
    """As a forward hook of an activation: add to the layer's saturated outputs, and to all of them."""
    row = feeding_row(output, rows)
    if row is not None:
        with torch.no_grad():
            found = torch.count_nonzero((output <= limits[0]) | (output >= limits[1]))
            before, outputs = seen.get(row, (0, 0))
            seen[row] = before + found, outputs + output.numel()


def _weigh(seen: list[Tensor], dtypes: set[torch.dtype], module: nn.Module, args: tuple[Any, ...]) -> None:
    """As a forward pre-hook of a layer with weights: what it is given, and what it computes in."""
    given = args[0] if args else None
    if isinstance(given, Tensor):
        device = given.device.type
        dtypes.add(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else given.dtype)
    if len(seen) < CALLS and isinstance(given, Tensor) and given.is_floating_point() and given.ndim >= 2:
        seen.append(input_shares(given, sequences=isinstance(module, nn.Linear)))


def _most_different(calls: Sequence[Sequence[float]]) -> Sequence[float]:
    """The call whose examples differ most, of those of which that is known if there are any.

    >>> _most_different([[np.nan, np.nan, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    [0.0, 0.0, 0.0]
    """
    return max(calls, key=lambda call: (not np.isnan(call[0]), call[0], -call[2]))


def _listen(
    seen: dict[int, Tensor], order: count[int], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """As a forward pre-hook of a recurrent module: put an input in place that tells the norms of its gradient."""
    if seen:
        return None  # another forward pass, of the same step: gradients are accumulated
    given = args[0] if args else kwargs["input"]
    packed = isinstance(given, PackedSequence)
    x = _own(given.data if packed else given, module)
    if x is None:
        return None
    cell = isinstance(module, nn.RNNCellBase)
    time = None if cell else int(module.batch_first and x.ndim == 3)
    batch_sizes = given.batch_sizes.tolist() if packed else None
    x.register_hook(partial(_hear, seen, next(order), time, batch_sizes))  # type: ignore[no-untyped-call]
    own = PackedSequence(x, *given[1:]) if packed else x
    return ((own, *args[1:]), kwargs) if args else (args, {**kwargs, "input": own})


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
    seen: dict[int, Tensor], call: int, time: int | None, batch_sizes: Sequence[int] | None, gradient: Tensor
) -> None:
    """As a hook of that input: the first gradient of a call counts."""
    if torch.compiler.is_compiling() or call in seen:
        return
    with contextlib.suppress(Exception), torch.no_grad():
        seen[call] = step_norms(gradient.detach(), time, batch_sizes)


def _drop_gradient(leaf: Tensor) -> None:
    leaf.grad = None  # nobody reads it, and it is as large as the input


def _is_one_way(module: nn.Module) -> bool:
    """Whether it is a recurrent module that goes through time in one direction, as torch's own do."""
    return getattr(type(module), "forward", None) in _RECURRENT and not getattr(module, "bidirectional", False)
