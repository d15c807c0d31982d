"""Capture: everything left of the wall. Tensors on their device become one vector on its way to the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradwatch.amp import Scaling
from gradwatch.arriving import Arriving, Sizes
from gradwatch.clip_call import clip_unscaled, tensors_of
from gradwatch.faults import Faults
from gradwatch.host_copy import HostCopy
from gradwatch.layers import LayerTable
from gradwatch.looks import Looks
from gradwatch.protocols import ClipPolicy
from gradwatch.records import ClipRecord
from gradwatch.reduction import Parts, Reduction
from gradwatch.sampled import COLUMNS, Elements, Moved, ParameterSample, element_sums
from gradwatch.sharding import Sharding
from gradwatch.stats import Measured, measure


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
    measured: list[Measured] = field(default_factory=list)
    elements: list[Elements] = field(default_factory=list)
    samples: list[ParameterSample | None] = field(default_factory=list)
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
        self.looks = Looks(table, faults)

    def begin(self, look: bool) -> None:
        """A new step begins: how far the last sampled one moved its parameters is known now.

        Args:
            look: whether it is looked at closely; where it is not, nobody shall listen on.
        """
        self.looks.begin(look)
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
        of_clip = [] if record is None else tensors_of(record)
        if of_clip:
            numbers = torch.cat([numbers, torch.stack([number.to(numbers) for number in of_clip])])
        arriving = Arriving(
            step,
            captured,
            self._table.names,
            Sizes(self._table.numel, self._table.outputs),
            HostCopy(numbers),
            float(measured.total_norm) if measured.total_norm.device.type == "cpu" else math.nan,
            gathered.rows,
            record,
            len(of_clip),
            gathered.scaling is not None,
            Elements.together(gathered.elements),
            Moved.together([m for m in moved or [] if m is not None]),
            self.looks.take(gathered.only, gathered.scaling is not None) if look else None,
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
            self.looks.add(found)
            watched = found.watched()
            part, consequence = "the sampled statistics", "they are missing at this step"
            gathered.samples.append(self._faults.run(part, consequence, ParameterSample, watched, otherwise=None))
        if sample:
            elements = self._faults.run(part, consequence, element_sums, watched, factor, otherwise=None)
            gathered.elements += [] if elements is None else [elements]

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
        record = self._faults.run(part, consequence, clip_unscaled, *given, otherwise=None)
        if record is not None:
            gathered.parts.put_back(gathered.values)
        return record
