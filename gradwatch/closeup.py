"""A close look at one training step: what layers are given, what their activations pass, what the loss asks for, and
in which mode the model is.

All of it needs to see the inside of a forward and a backward pass, so for this one step there are hooks on a few
modules.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from gradwatch.inputs import NORMALISATIONS, Given, GivenInputs
from gradwatch.last_output import LastOutput, OfOutputs
from gradwatch.layers import Place, join, places
from gradwatch.linear_range import linear_range
from gradwatch.mode import Mode
from gradwatch.records import FloatArray, Layer
from gradwatch.safe_hook import SafeHook
from gradwatch.saturated_outputs import Saturated, SaturatedOutputs
from gradwatch.time_gradient import AlongTime, TimeGradient, is_one_way
from gradwatch.torch_internals import in_transform

MODULES = 32
"""Of the modules with weights, how many are looked at for what they are given, evenly along the model; and of recurrent
ones all."""

_NOT_GIVEN = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, torch.jit.ScriptModule)
"""Given indices, or sequences in any order; and what takes no hook."""

_UNWATCHED = -1
T = TypeVar("T")


class CloseupStats(NamedTuple):
    """What one step showed: of each layer, float64 [L], and of the outputs and the model; NaN of what is not known.

    The fields are those of Saturated, AlongTime and Given, of OfOutputs and of OfModel, which say what they are.
    """

    saturated: FloatArray
    time_ratio: FloatArray
    time_gain: FloatArray
    steps_read: FloatArray
    sequences_read: FloatArray
    variation: FloatArray
    variation_within: FloatArray
    given_nothing: FloatArray
    data_rms: FloatArray
    output_gradient: float
    output_error: float
    loss_gradient: float
    output_variation: float
    out_of_reach: float
    output_row: float
    """The row of the last layer."""
    loss_mismatch: float
    output_scatter: float
    output_offset: float
    dropped: float
    evaluates: float


class _Listeners:
    """What looks at one step.

    Args:
        rows: of each parameter by its id, for activations.
        maximizes: whether the optimizer makes the loss larger.
    """

    def __init__(self, rows: Mapping[int, int] | None = None, maximizes: bool = False) -> None:
        self.saturated = SaturatedOutputs(rows or {})
        self.along_time = TimeGradient()
        self.given = GivenInputs()
        self.output = LastOutput(maximizes)
        self.mode = Mode()


_OF_LAYERS = (Saturated, AlongTime, Given)
"""What they tell of each layer."""


class Closeup:
    """Looks at one step: :meth:`arm` before its forward pass, :meth:`take` after its backward pass.

    The hooks are gone after that, and nothing of the user's is kept. They change no bit of training, and a failure in
    one of them is a NaN. What is not known is NaN, too: a layer that has nothing to look at; what runs without
    gradients, compiled, or with its saved tensors taken elsewhere (``checkpoint(..., use_reentrant=False)``,
    ``save_on_cpu``), where one tensor more or less may matter.

    ``saturated`` is of nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid and nn.Softsign: the share of outputs whose
    derivative is below 5% of the largest possible, over all calls that a layer's outputs go through, so that a layer
    that is used once per time step, or accumulates gradients, is judged by all of them.

    What goes along time is of torch's RNN, GRU, LSTM and their cells, but for bidirectional layers, whose two
    directions mix; see :class:`~gradwatch.time_gradient.TimeGradient`.

    What is given is of layers with a weight matrix or kernel, of many MODULES of them, and of recurrent ones how large
    it is; see :class:`~gradwatch.inputs.GivenInputs`. NaN for indices.

    The outputs are those of the layer nearest to the loss, and of the model itself; see
    :class:`~gradwatch.last_output.LastOutput`. A gradient scaler's scale is not divided out.

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
        >>> stats.saturated.tolist(), stats.variation.tolist(), stats.data_rms.tolist()
        ([1.0, nan], [0.0, 0.0], [1000000.0, nan])
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self._model = weakref.ref(model)
        self._layers = len(layers)
        self._row_of = {name: row for row, layer in enumerate(layers) for name in layer.parameters}
        self._activations: list[tuple[weakref.ref[nn.Module], tuple[float, float]]] = []
        self._recurrent: list[tuple[weakref.ref[nn.Module], int]] = []
        self._given: list[tuple[weakref.ref[nn.Module], int]] = []
        """Those that are looked at for what they are given, the recurrent ones first."""
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._looks = _Listeners()
        self.half: bool | None = None
        """Whether a layer computed in float16 in the step last taken; None where none was looked at."""
        given: list[tuple[weakref.ref[nn.Module], int]] = []
        self._normalised: set[int] = set()
        """The rows of layers with a normalisation behind, before the next weights, in the order of the modules."""
        for place in places(model):
            if isinstance(place.module, NORMALISATIONS) and given:
                self._normalised.add(given[-1][1])
            limits = linear_range(place.module)
            if limits is not None:
                self._activations.append((weakref.ref(place.module), limits))
            elif is_one_way(place.module) and (row := self._row_below(place.path)) is not None:
                self._recurrent.append((weakref.ref(place.module), row))
            elif (row := self._row_of_weights(place)) is not None:
                given.append((weakref.ref(place.module), row))
        self._given = [*self._recurrent, *spread(given, MODULES)]

    def arm(self, maximizes: bool = False) -> None:
        """Put hooks in place for the coming step; nothing where they are, or where there is nothing to look at.

        Args:
            maximizes: whether the optimizer makes the loss larger.
        """
        model = self._model()
        if self._handles or model is None:
            return
        looks = self._looks = _Listeners(self._rows(model) if self._activations else {}, maximizes)
        for reference, limits in self._activations:
            if (module := reference()) is not None:
                count = _hook(partial(looks.saturated.listen, limits))
                self._handles.append(module.register_forward_hook(count, prepend=True))
        for number, (reference, row) in enumerate(self._given):
            if (module := reference()) is not None:
                weigh = partial(looks.given.listen, row, row in self._normalised)
                self._handles.append(module.register_forward_pre_hook(_hook(weigh)))
                hear = partial(looks.output.listen, number)
                self._handles.append(module.register_forward_hook(_hook(hear)))
        if self._handles:
            self._handles.append(model.register_forward_hook(_hook(looks.output.listen_to_all)))
            self._handles.append(model.register_forward_hook(_hook(looks.mode.listen)))
        for reference, row in self._recurrent:  # last, as what it puts in place of the data is none
            if (module := reference()) is not None:
                listen = _hook(partial(looks.along_time.listen, row))
                self._handles.append(module.register_forward_pre_hook(listen, with_kwargs=True))

    def take(self) -> CloseupStats:
        """What was seen since :meth:`arm`, from the device it is on; the hooks are removed."""
        looks = self._looks
        self.half = torch.float16 in looks.given.dtypes if looks.given.dtypes else None
        self.close()
        of_layers: dict[str, Any] = {
            name: np.full(self._layers, np.nan) for kind in _OF_LAYERS for name in kind._fields
        }
        of_outputs: dict[str, Any] = dict.fromkeys(OfOutputs._fields, np.nan)
        for take in (looks.saturated.take, looks.along_time.take, looks.given.take):
            with contextlib.suppress(Exception):
                for row, seen in take().items():
                    for name, value in seen._asdict().items():
                        of_layers[name][row] = value
        with contextlib.suppress(Exception):
            of_outputs = looks.output.take()._asdict()
        number = of_outputs.pop("number")
        output_row = self._given[int(number)][1] if np.isfinite(number) else np.nan
        mode = looks.mode.take()._asdict()
        return CloseupStats(**of_layers, **of_outputs, **mode, output_row=output_row)

    def close(self) -> None:
        """Remove the hooks and forget what they saw."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._looks = _Listeners()

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
