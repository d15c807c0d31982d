"""What sampled steps add: statistics that need another reading of the gradients, and how far a step moved weights."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradwatch.histograms import BUCKETS, element_stats, log10_counts, short_stats
from gradwatch.layers import Gradients
from gradwatch.records import FloatArray
from gradwatch.sharding import local_part
from gradwatch.stats import measure, real_values, short_groups

FEW = 64
"""Elements of a gradient by which its precision is told."""

COLUMNS = 4 + BUCKETS
"""Sums over the elements of a gradient: zeros, all, non-finite ones, squares of the parameter, and the histogram."""


class Elements(NamedTuple):
    """What another reading of P gradients and parameters gives."""

    rows: Sequence[int]
    slots: Sequence[int]
    sums: FloatArray
    """[P, COLUMNS]."""
    max_abs: FloatArray
    """[P], largest finite magnitude."""

    @classmethod
    def together(cls, parts: Sequence[Elements]) -> Elements | None:
        """All of ``parts``; None where there are none."""
        return cls(*map(_joined, zip(*parts))) if parts else None

    def take_gradient(self, i: int, gradient: Tensor) -> None:
        """Put what ``gradient`` gives in the place of what was known of the i-th."""
        found = element_stats(gradient)
        self.sums[i, :3] = found.zeros, found.numel, found.nonfinite
        self.sums[i, 4:] = log10_counts(found.counts)
        self.max_abs[i] = found.max_abs

    def stats(self, layers: int) -> dict[str, Any]:
        """The statistics of sampled steps as :class:`~gradwatch.records.StepStats` names them, arrays [L]."""
        zeros, elements, nonfinite, squares, *buckets = _by_layer(self.sums, self.rows, layers).T
        largest = np.zeros(layers + 1)
        np.maximum.at(largest, list(self.rows), self.max_abs)
        return {
            "max_abs": largest[:-1],
            "zero_fraction": zeros / np.maximum(elements, 1),
            "nonfinite": np.rint(nonfinite).astype(np.int64),
            "param_norm": np.sqrt(squares),
            "histogram": np.rint(np.stack(buckets, axis=1)).astype(np.int64),
        }


class Moved(NamedTuple):
    """How far a step moved P parameters."""

    rows: Sequence[int]
    slots: Sequence[int]
    squares: FloatArray
    """[P, 2], ``|change|^2`` and ``|parameter|^2``; 0 of a parameter that is gone."""

    @classmethod
    def together(cls, parts: Sequence[Moved]) -> Moved | None:
        """All of ``parts``; None where there are none."""
        return cls(*map(_joined, zip(*parts))) if parts else None

    def update_ratio(self, layers: int) -> FloatArray:
        """float64 [L], ``|change| / |parameters|``; NaN for a layer that is unknown or was zero."""
        change, size = np.sqrt(_by_layer(self.squares, self.rows, layers)).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(size > 0, change / size, np.nan)

    def total_update(self, outputs: FloatArray) -> float:
        """``|change| / |parameters|`` of all layers together; the parameters of each, [L], at least sqrt(``outputs``).

        NaN where nothing is known.
        """
        change, size = _by_layer(self.squares, self.rows, len(outputs)).T
        known = size > 0
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return float(np.sqrt(np.sum(change[known]) / np.sum(np.maximum(size, outputs)[known])))

    def has_broken(self) -> bool:
        """Whether the step made NaN or inf of parameters that were neither."""
        change, size = self.squares.T
        return bool((np.isfinite(size) & ~np.isfinite(change)).any())


@torch.no_grad()
def element_sums(gradients: Gradients, factor: Tensor | None = None) -> Elements:
    """Everything that needs another reading of the gradients and parameters; for one step in a hundred.

    Args:
        gradients: of P parameters.
        factor: what the gradients are multiplied by.
    """
    values = [real_values(g if factor is None else g.detach() / factor) for g in gradients.values]
    sizes = np.array([v.numel() for v in values], np.int64)
    sums, max_abs = np.zeros((len(values), COLUMNS)), np.zeros(len(values))
    alike = np.array([v.dtype is torch.float32 and v.device.type == "cpu" for v in values], bool)
    together = short_groups(np.where(alike, sizes, 0))
    for group in together:
        zeros, nonfinite, max_abs[group], buckets = short_stats([values[i] for i in group], sizes[group])
        sums[group, 0], sums[group, 2], sums[group, 4:] = zeros, nonfinite, buckets
    counted = Elements(gradients.rows, gradients.slots, sums, max_abs)
    for i in np.setdiff1d(np.arange(len(values)), np.concatenate([[], *together])).astype(int):
        counted.take_gradient(i, values[i])
    sums[:, 1] = [g.numel() * (2 if g.is_complex() else 1) for g in gradients.values]
    sums[:, 0] += sums[:, 1] - sizes  # what a sparse gradient does not store is zero
    with np.errstate(over="ignore"):
        norms = measure([local_part(parameter).values for parameter in gradients.parameters]).norms
        sums[:, 3] = np.square(norms.double().cpu().numpy())
    return counted._replace(sums=sums * _weights(gradients))


@torch.no_grad()
def in_float16(gradients: Sequence[Tensor]) -> bool | None:
    """Whether gradients were computed in float16, as under autocast; None where there is nothing to tell by.

    Cast to float32, a number of float16 has ten bits of mantissa, and has them still when a loss scale that is a power
    of two is taken out; of bfloat16 it has seven, of a sum of several some more. What float16 has below 6e-5 has fewer,
    and is a multiple of its least number. Sums of several backward passes are not recognised, nor are gradients that
    were clipped. It looks at the first elements of each matrix, and waits for the device.

    >>> in_float16([torch.randn(8, 50).half().float()]), in_float16([torch.randn(8, 50).bfloat16().float()])
    (True, False)
    >>> in_float16([torch.zeros(8, 50)])
    """
    if any(g.dtype is torch.float16 for g in gradients):
        return True
    few = [real_values(g.detach()).reshape(-1)[:FEW] for g in gradients if g.ndim > 1 and g.dtype is torch.float32]
    values = torch.cat([v.cpu() for v in few]).numpy() if few else np.zeros(0, np.float32)
    values = values[np.isfinite(values) & (values != 0)]
    if not len(values):
        return None
    bits, magnitude = values.view(np.int32), np.abs(values.astype(np.float64))
    ten, seven = ((bits & ((1 << dropped) - 1)) == 0 for dropped in (13, 16))
    full = ten & (bits & (1 << 13) != 0)  # that uses the tenth
    multiples = np.mod(magnitude * 2.0**24, 1.0) == 0
    digits = ten.mean() > 0.95 and full.mean() > 0.3 and seven.mean() < 0.5
    return bool(digits or (multiples.mean() > 0.99 and (magnitude < 2.0**-17).mean() > 0.5))


class ParameterSample:
    """Up to 1,024 elements of each parameter, kept for one step to see how far the step moved them.

    Args:
        gradients: of P parameters that are about to be updated.
    """

    SIZE = 1024
    """Elements of a parameter; the estimate of a layer's update is within a few percent of the whole."""

    @torch.no_grad()
    def __init__(self, gradients: Gradients) -> None:
        self._rows, self._slots = gradients.rows, gradients.slots
        self._parameters = [weakref.ref(parameter) for parameter in gradients.parameters]
        whole = [real_values(local_part(parameter).values) for parameter in gradients.parameters]
        self._before = [thinned(values).clone() for values in whole]
        self._met = [_meets(*pair) for pair in zip(gradients.values, whole)]
        stands_for = [values.numel() / max(b.numel(), 1) for values, b in zip(whole, self._before)]
        self._weights = np.array(stands_for).reshape(-1, 1) * _weights(gradients)

    @torch.no_grad()
    def moved(self) -> Moved:
        """How far the parameters are now from where they were."""
        found = [(i, p) for i, ref in enumerate(self._parameters) if (p := ref()) is not None]
        now = {i: thinned(real_values(local_part(p).values)) for i, p in found}
        kept = [i for i, values in now.items() if values.shape == self._before[i].shape]
        before = [self._before[i] for i in kept]
        change = measure(torch._foreach_sub([now[i] for i in kept], before) if kept else ()).norms
        size = measure(before).norms
        squares = np.zeros((len(self._before), 2))
        with np.errstate(over="ignore", invalid="ignore"):
            squares[kept] = np.square(torch.stack([change, size], dim=1).double().cpu().numpy())
            # Only for those that stand still the device is asked; of no size, so that nothing is known.
            squares[[i for i in np.flatnonzero(squares[:, 0] == 0) if not self._met[i]]] = 0.0
            return Moved(self._rows, self._slots, squares * self._weights)


def _meets(gradient: Tensor, values: Tensor) -> bool | Tensor:
    """Whether a sample of a large table's elements has any with a gradient; a step may touch a few of its rows."""
    if values.numel() <= TABLE:
        return True
    return gradient.layout is torch.strided and thinned(real_values(gradient.detach())).any()


TABLE = 100_000
"""Elements of a parameter from which the rows that a step touches may all lie beside the sample."""


def thinned(values: Tensor) -> Tensor:
    """Up to SIZE elements, evenly."""
    flat = values.reshape(-1)
    stride = max(1, -(-flat.numel() // ParameterSample.SIZE))
    return flat[:: stride | 1]  # an even stride would meet the same columns of every row


def _weights(gradients: Gradients) -> FloatArray:
    """[P, 1]."""
    return np.array(gradients.weights or [1.0] * len(gradients.rows)).reshape(-1, 1)


def _by_layer(sums: FloatArray, rows: Sequence[int], layers: int) -> FloatArray:
    """[L, columns]; a row of -1 is no layer's."""
    total = np.zeros((layers + 1, sums.shape[1]))
    np.add.at(total, list(rows), sums)
    return total[:-1]


def _joined(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [entry for part in parts for entry in part]
