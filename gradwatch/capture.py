"""Capture: everything left of the wall. Tensors on their device become one vector on its way to the host."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradwatch.alike import AlikeUnits
from gradwatch.amp import Scaling
from gradwatch.closeup import Closeup, CloseupStats
from gradwatch.faults import Faults
from gradwatch.host_copy import HostCopy
from gradwatch.idle import IdleParameters
from gradwatch.layers import Gradients, LayerTable
from gradwatch.leftover import Leftover
from gradwatch.protocols import ClipPolicy
from gradwatch.records import BoolArray, ClipRecord, FloatArray, StepStats
from gradwatch.reduction import Parts, Reduction
from gradwatch.sampled import COLUMNS, Elements, Moved, ParameterSample, element_sums, in_float16
from gradwatch.sharding import Sharding
from gradwatch.stats import Measured, measure, per_layer

CLOSEUP = "the close look at activations", "it is missing at this step"
ALIKE = "the look at units that are alike", "it is missing at this step"
IDLE = "the look at parameters that no optimizer has", "it is missing at this step"
LEFTOVER = "the look at gradients that were not zeroed", "it is missing at this step"


class _Sizes(NamedTuple):
    """How large L layers are."""

    numel: FloatArray
    outputs: FloatArray


class Idle(NamedTuple):
    """What has a gradient that no optimizer uses."""

    rows: list[int]
    """Of the layers."""
    strangers: int
    """Number of elements of parameters that are none of the model's."""


class Arriving(NamedTuple):
    """One step's measurement on its way to the host."""

    step: int
    captured: str
    layers: tuple[str, ...]
    sizes: _Sizes
    copy: HostCopy
    total_norm: float
    """NaN where that is not known without waiting."""
    rows: list[int]
    ndims: list[int] | None
    """Of each gradient; None when nobody looks closely."""
    clip: ClipRecord | None
    clip_numbers: int
    """Of ``clip``, how many are at the end of ``copy``: those that were tensors."""
    scaled: bool
    elements: Elements | None
    moved: Moved | None
    closeup: CloseupStats | None
    half: bool | None
    trained: BoolArray | None
    not_zeroed: bool | None
    alike: list[int] | None
    """The rows of the layers whose units are."""
    idle: Idle | None
    reduction: Reduction | None

    @property
    def looked_at(self) -> bool:
        """Whether the step was looked at closely."""
        return self.ndims is not None

    def read(self) -> tuple[StepStats, ClipRecord | None]:
        """The numbers, once they have arrived.

        Raises:
            RuntimeError: when a rank could not measure its part.
        """
        numbers, clip = self.copy.numpy(), self.clip
        if clip is not None and self.clip_numbers:
            numbers, of_clip = np.split(numbers, [-self.clip_numbers])
            clip = _in_floats(clip, iter(of_clip.tolist()))
        norms, rows, ndims, elements, moved = numbers, self.rows, self.ndims or [], self.elements, self.moved
        ranks: tuple[int, ...] = ()
        if self.reduction is not None:
            norms, rows, ndims, elements, moved, ranks = self.reduction.read(numbers)
        layers = len(self.layers)
        norm, has_grad = per_layer(norms, rows, layers)
        stats = StepStats(
            self.step,
            self.layers,
            norm,
            has_grad,
            math.sqrt(norm.dot(norm)),
            captured=self.captured,
            skipped=self.scaled and not np.isfinite(norms).all(),
            nonfinite_ranks=ranks,
            update_ratio=moved and moved.update_ratio(layers),
            numel=self.sizes.numel,
            total_update=moved and moved.total_update(self.sizes.outputs),
            input_size=None if self.ndims is None else input_size(norms, rows, ndims, layers),
            half=self.half,
            trained=self.trained,
            not_zeroed=self.not_zeroed,
            alike=None if self.alike is None else np.isin(np.arange(layers), self.alike),
            idle=None if self.idle is None else np.isin(np.arange(layers), self.idle.rows),
            unregistered=None if self.idle is None else self.idle.strangers,
            **({} if self.closeup is None else self.closeup._asdict()),
            **({} if elements is None else elements.stats(layers)),
        )
        return stats, clip


@dataclass
class _Gathered:
    """What one step's gradients measured so far: all at once, or one optimizer's after the other's."""

    values: list[Tensor] = field(default_factory=list)
    """The gradients; of a sharded model the parts that this rank holds."""
    factors: list[Tensor | None] = field(default_factory=list)
    """What a GradScaler has multiplied each of them by."""
    parameters: list[Tensor] = field(default_factory=list)
    """Whose gradients they are, where they are to be clipped."""
    only: set[int] | None = None
    """The ids of the parameters looked at, None for all."""
    rows: list[int] = field(default_factory=list)
    ndims: list[int] = field(default_factory=list)
    half: list[bool | None] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    elements: list[Elements] = field(default_factory=list)
    samples: list[ParameterSample | None] = field(default_factory=list)
    alike: list[int] | None = None
    parts: Parts = field(default_factory=Parts)
    """Of a sharded model, what this rank adds to the sum."""
    scaling: Scaling | None = None
    error: Exception | None = None

    @property
    def factor(self) -> Tensor | None:
        """What a GradScaler has multiplied the gradients by."""
        return None if self.scaling is None else self.scaling.factor


class Capture:
    """Measures the gradients of one step after the other, clips them, and sends their numbers to the host.

    Of a sharded model every rank takes part in the one all_reduce of each step, whatever happened to it: what can fail
    happens before, and the others are told of it in the vector.

    Args:
        table: the layers of the model.
        faults: runs what may fail without the rest.
    """

    def __init__(self, table: LayerTable, faults: Faults) -> None:
        self._table, self._faults = table, faults
        self._gathered = _Gathered()
        self._samples: tuple[int, list[ParameterSample | None]] | None = None
        self._moved: tuple[int, list[Moved | None]] | None = None
        self._cut_off: Exception | None = None
        self._closeup: tuple[int, Closeup] | None = None
        self._leftover = Leftover()
        self._alike: tuple[int, AlikeUnits] | None = None
        self._idle = IdleParameters()
        self.strangers: Sequence[weakref.ref[Tensor]] = ()
        """Parameters that the model uses and that are none of it, as far as is known."""
        self._expecting = False

    def close(self) -> None:
        """Take the hooks off the model that a close look put there."""
        self._leftover.close()
        if self._closeup is not None:
            self._closeup[1].close()

    def expect(self, only: Sequence[Tensor] | None, maximizes: bool = False) -> None:
        """The coming step will be looked at closely: get ready before its forward pass.

        Not of a sharded model, whose ranks see different examples and must come to the same alerts.

        Args:
            only: the optimizers' parameters.
            maximizes: whether they make the loss larger.
        """
        if self._table.sharding is None:
            self._expecting = True
            self._faults.run(*CLOSEUP, self._arm, maximizes, otherwise=None)
            self._faults.run(*LEFTOVER, self._arm_leftover, only, otherwise=None)

    def begin(self, look: bool) -> None:
        """A new step begins: how far the last sampled one moved its parameters is known now.

        Args:
            look: whether it is looked at closely; where it is not, nobody shall listen on.
        """
        if self._expecting and not look:
            self.close()
        self._expecting = False
        pending, self._samples = self._samples, None
        if pending is not None:
            version, samples = pending
            self._moved = version, [self._moved_by(sample) for sample in samples]

    def add(
        self, only: Sequence[Tensor] | None, clip: ClipPolicy | None, look: bool, sample: bool, scaling: Scaling | None
    ) -> None:
        """Measure the gradients that exist now; an error is kept for :meth:`finish`."""
        try:
            self._measure(only, clip, look, sample, scaling)
        except Exception as error:
            self._gathered.error = error

    def forget(self) -> None:
        """Drop what was measured of a step that will not be finished."""
        self._gathered = _Gathered()

    def finish(
        self, step: int, due: bool, look: bool, sample: bool, clip: ClipPolicy | None, captured: str
    ) -> tuple[Measured, Arriving | None]:
        """Clip what was measured, and start the copy to the host where it is to be recorded."""
        gathered, self._gathered = self._gathered, _Gathered()
        if look:
            self._samples = self._table.version, gathered.samples if gathered.error is None else [None]
        moved = self._take_moved() if due else None
        reduction = None
        if self._table.sharding is not None:
            reduction = self._filled(self._table.sharding, gathered, sample, moved)
            numbers, measured = self._reduce(reduction, gathered)
        if gathered.error is not None:
            raise gathered.error
        if reduction is None:
            measured = Measured.together(gathered.measured)
            numbers = measured.norms
        record = (
            None if clip is None else self._clip(clip, gathered, *self._to_clip(gathered, measured, reduction, numbers))
        )
        if not due:
            return measured, None
        of_clip = [] if record is None else _tensors_of(record)
        if of_clip:
            numbers = torch.cat([numbers, torch.stack([number.to(numbers) for number in of_clip])])
        closeup = self._take_closeup() if look else None
        if closeup is not None and gathered.scaling is not None:  # its scale may have changed since the last look
            closeup = closeup._replace(loss_gradient=math.nan)
        arriving = Arriving(
            step,
            captured,
            self._table.names,
            _Sizes(self._table.numel, self._table.outputs),
            HostCopy(numbers),
            float(measured.total_norm) if measured.total_norm.device.type == "cpu" else math.nan,
            gathered.rows,
            gathered.ndims if look else None,
            record,
            len(of_clip),
            gathered.scaling is not None,
            Elements.together(gathered.elements),
            Moved.together([m for m in moved or [] if m is not None]),
            closeup,
            next((half for half in (*gathered.half, self._half(closeup)) if half is not None), None),
            self._table.trained(gathered.only) if look else None,
            self._faults.run(*LEFTOVER, self._leftover.take, otherwise=None) if look else None,
            gathered.alike if look else None,
            self._faults.run(*IDLE, self._look_for_idle, gathered.only, otherwise=None) if look else None,
            reduction,
        )
        return measured, arriving

    def _measure(
        self, only: Sequence[Tensor] | None, clip: ClipPolicy | None, look: bool, sample: bool, scaling: Scaling | None
    ) -> None:
        gathered = self._gathered
        gathered.scaling = scaling
        if only is not None:
            gathered.only = {*(gathered.only or ()), *map(id, only)}
        found = self._table.collect(only, everything=clip is not None or scaling is not None)  # a scaler looks at all
        sharding = self._table.sharding  # known after collect(), which follows the model
        if sharding is not None:
            whole, found = found.values, sharding.localize(found)
            gathered.parts.add(found, whole, gathered.factor)
        measured = measure(found.values, by_torch=sharding is None and getattr(clip, "by_torch", False))
        factor = gathered.factor
        if factor is not None:
            factor = factor.to(measured.norms.device, non_blocking=True)
            measured = Measured(measured.norms / factor, measured.total_norm / factor)
        if clip is not None:  # kept to be clipped, else they may be freed
            gathered.values += found.values
            gathered.factors += [gathered.factor] * len(found.values)
            gathered.parameters += found.parameters
        gathered.rows += found.rows
        gathered.measured.append(measured)
        if look:
            gathered.ndims += [p.ndim for p in found.parameters]
            watched = found.watched()
            gathered.half.append(in_float16(watched.values) if sharding is None else None)
            if sharding is None:
                alike = self._faults.run(*ALIKE, self._look_for_alike, watched, otherwise=None)
                gathered.alike = alike if gathered.alike is None else gathered.alike + (alike or [])
            part, consequence = "the sampled statistics", "they are missing at this step"
            gathered.samples.append(self._faults.run(part, consequence, ParameterSample, watched, otherwise=None))
        if sample:
            elements = self._faults.run(part, consequence, element_sums, watched, factor, otherwise=None)
            gathered.elements += [] if elements is None else [elements]

    def _arm(self, maximizes: bool) -> None:
        model, version = self._table.model(), self._table.version
        if model is None:
            return
        if self._closeup is None or self._closeup[0] != version:
            self.close()
            self._closeup = version, Closeup(model, self._table.layers)
        self._closeup[1].arm(maximizes)

    def _look_for_alike(self, watched: Gradients) -> list[int]:
        if self._alike is None or self._alike[0] != self._table.version:
            self._alike = self._table.version, AlikeUnits()
        return self._alike[1].look(watched)

    def _look_for_idle(self, only: set[int] | None) -> Idle | None:
        """Not of a sharded model, whose optimizer may have parts of its parameters."""
        if only is None or self._table.sharding is not None:
            return None
        strangers, layers = (
            [p for reference in self.strangers if (p := reference()) is not None],
            len(self._table.layers),
        )
        rows = self._idle.look([*self._table.parameters(), *zip(strangers, count(layers))], only)
        return Idle(rows, sum(strangers[row - layers].numel() for row in rows if row >= layers))

    def _arm_leftover(self, only: Sequence[Tensor] | None) -> None:
        self._leftover.arm(self._table.collect(only).parameters)

    def _take_closeup(self) -> CloseupStats | None:
        if self._closeup is None:
            return None
        if self._closeup[0] != self._table.version:
            self.close()
            return None
        return self._faults.run(*CLOSEUP, self._closeup[1].take, otherwise=None)

    def _half(self, closeup: CloseupStats | None) -> bool | None:
        """Whether a close look saw float16, for gradients that do not tell: all of them zero."""
        return None if closeup is None or self._closeup is None else self._closeup[1].half

    def _moved_by(self, sample: ParameterSample | None) -> Moved | None:
        if sample is None:
            return None
        part, consequence = "the update ratio", "it is missing at this step"
        return self._faults.run(part, consequence, sample.moved, otherwise=None)

    def _take_moved(self) -> list[Moved | None] | None:
        """What :meth:`begin` found, with None for what failed or is of other layers; None where nobody looked."""
        found, self._moved = self._moved, None
        return None if found is None else found[1] if found[0] == self._table.version else [None]

    def _filled(
        self, sharding: Sharding, gathered: _Gathered, sample: bool, moved: Sequence[Moved | None] | None
    ) -> Reduction:
        """What this rank sends; where that fails, that it did."""
        shape = (sharding, COLUMNS if sample else 0, moved is not None)
        reduction = Reduction(*shape)
        try:
            if gathered.error is None:
                reduction.add_norms(gathered.parts, Measured.together(gathered.measured).norms)
                for elements in gathered.elements:
                    reduction.add_elements(elements)
                if len(gathered.elements) < len(gathered.measured):
                    reduction.miss("unsampled")
                for m in moved or ():
                    reduction.miss("unmoved") if m is None else reduction.add_moved(m)
        except Exception as error:
            gathered.error, reduction = error, Reduction(*shape)
        if gathered.error is not None:
            reduction.fail()
        return reduction

    def _reduce(self, reduction: Reduction, gathered: _Gathered) -> tuple[Tensor, Measured]:
        """The vector over all ranks, and the norms of the whole gradients."""
        if self._cut_off is not None:
            raise RuntimeError("the ranks lost each other before") from self._cut_off
        try:
            vector = reduction.run()
        except Exception as error:
            self._cut_off = error
            raise
        if gathered.values:
            gathered.parts.sum_(gathered.values, reduction, vector, gathered.factor)
        return vector, reduction.measured(vector, gathered.parts.slots)

    def _to_clip(
        self, gathered: _Gathered, measured: Measured, reduction: Reduction | None, vector: Tensor
    ) -> tuple[list[Tensor], Measured]:
        """The gradients for a policy, and what it may know of them.

        Of a sharded model that is all parameters, so that every rank decides alike: where it holds nothing of a
        gradient, one without elements is in its place.
        """
        scaled = gathered.scaling is not None
        if reduction is None:
            names = [self._table.paths[id(p)] for p in gathered.parameters]
            return gathered.values, replace(measured, names=names, parameters=gathered.parameters, scaled=scaled)
        held = dict(zip(gathered.parts.slots, gathered.values))
        every = enumerate(self._table.named_parameters().items())
        found = [(slot, *named) for slot, named in every if gathered.only is None or id(named[1]) in gathered.only]
        slots, names, parameters = ([*column] for column in zip(*found)) if found else ([], [], [])
        values = [
            held[slot] if slot in held else torch.zeros(0, dtype=p.dtype, device=vector.device)
            for slot, p in zip(slots, parameters)
        ]
        return values, replace(reduction.measured(vector, slots), names=names, parameters=parameters, scaled=scaled)

    def _clip(
        self, clip: ClipPolicy, gathered: _Gathered, gradients: list[Tensor], measured: Measured
    ) -> ClipRecord | None:
        part, consequence = f"clip {type(clip).__name__}", "this step is clipped in part or not at all"
        factors = gathered.factors if gradients is gathered.values else [gathered.factor] * len(gradients)
        given = (clip, gradients, measured, factors)
        record = self._faults.run(part, consequence, _clip_unscaled, *given, otherwise=None)
        if record is not None:
            gathered.parts.put_back(gathered.values)
        return record


def input_size(norms: FloatArray, rows: Sequence[int], ndims: Sequence[int], layers: int) -> FloatArray:
    """float64 [L], norm of the gradients of a layer's matrices / that of its vectors; NaN where one is not there."""
    dims, row = np.array(ndims, np.int64), np.array(rows, np.int64)
    of_matrix, of_vector = (per_layer(norms[kind], row[kind], layers)[0] for kind in (dims >= 2, dims == 1))
    with np.errstate(all="ignore"):
        ratio = of_matrix / of_vector
    return np.where((of_matrix > 0) & (of_vector > 0), ratio, np.nan)


@torch.no_grad()
def _clip_unscaled(
    clip: ClipPolicy, gradients: Sequence[Tensor], measured: Measured, factors: Sequence[Tensor | None]
) -> ClipRecord:
    """A policy's limits are meant for the true gradients, so it gets those where a GradScaler has multiplied them.

    What it leaves as it is stays so to the last bit: dividing and multiplying by a factor may round.
    """
    if not any(factor is not None for factor in factors):
        return _checked(clip.clip_(gradients, measured))
    true = [g if factor is None else g / factor for g, factor in zip(gradients, factors)]
    before = [gradient.clone() for gradient in true]
    whole = [p.grad for p in measured.parameters]
    record = _checked(clip.clip_(true, measured))
    taken = [(p, grad) for p, grad in zip(measured.parameters, whole) if grad is not None and p.grad is None]
    for p, grad in taken:  # the step is skipped; but a scaler that finds no gradient at all raises
        p.grad = grad
    for gradient, old, new, factor in zip(gradients, before, true, factors):
        dense = gradient.layout is torch.strided
        if taken:
            gradient.zero_()
        elif factor is not None:
            gradient.copy_(torch.where(new == old, gradient, new * factor) if dense else new * factor)
    return record


def _checked(record: Any) -> ClipRecord:
    """What a policy gave, which may be the user's own: on the CPU with plain numbers."""
    if not isinstance(record, ClipRecord):
        raise TypeError(f"clip_() must give a ClipRecord, got {record!r}")
    for value in _numbers(record):
        number = value.ndim == 0 if isinstance(value, Tensor) else isinstance(value, (float, Real))  # Real is slow
        if not number:
            raise TypeError(f"clip_() must give numbers in its ClipRecord, got {value!r}")
    for part in record.parts:
        _checked(part)
    return _in_floats(record)


def _numbers(record: ClipRecord) -> tuple[Any, ...]:
    return record.norm_before, record.norm_after, record.coefficient, record.threshold, record.clipped


def _tensors_of(record: ClipRecord) -> list[Tensor]:
    """What a policy left on the device of the numbers of ``record``, to go to the host with the norms."""
    here = [value for value in _numbers(record) if isinstance(value, Tensor)]
    return here + [tensor for part in record.parts for tensor in _tensors_of(part)]


def _in_floats(record: ClipRecord, arrived: Iterator[float] | None = None) -> ClipRecord:
    """``record`` with plain numbers: what was on the device as it ``arrived``, or while it has not left as it is."""
    numbers: list[Any] = []
    for value in _numbers(record):
        waits = isinstance(value, Tensor) and value.device.type != "cpu"
        numbers.append(float(value) if not waits else value if arrived is None else next(arrived))
    parts = tuple([_in_floats(part, arrived) for part in record.parts])
    before, after, coefficient, threshold, clipped = numbers
    return ClipRecord(record.policy, before, after, coefficient, threshold, record.group, clipped, parts)
