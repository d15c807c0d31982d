"""One call of a clip policy, which may be the user's own: what it is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from gradwatch.protocols import ClipPolicy
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


@torch.no_grad()
def clip_unscaled(
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
    return in_floats(record)


def _numbers(record: ClipRecord) -> tuple[Any, ...]:
    return record.norm_before, record.norm_after, record.coefficient, record.threshold, record.clipped


def tensors_of(record: ClipRecord) -> list[Tensor]:
    """What a policy left on the device of the numbers of ``record``, to go to the host with the norms."""
    here = [value for value in _numbers(record) if isinstance(value, Tensor)]
    return here + [tensor for part in record.parts for tensor in tensors_of(part)]


def in_floats(record: ClipRecord, arrived: Iterator[float] | None = None) -> ClipRecord:
    """``record`` with plain numbers: what was on the device as it ``arrived``, or while it has not left as it is."""
    numbers: list[Any] = []
    for value in _numbers(record):
        waits = isinstance(value, Tensor) and value.device.type != "cpu"
        numbers.append(float(value) if not waits else value if arrived is None else next(arrived))
    parts = tuple([in_floats(part, arrived) for part in record.parts])
    before, after, coefficient, threshold, clipped = numbers
    return ClipRecord(record.policy, before, after, coefficient, threshold, record.group, clipped, parts)
