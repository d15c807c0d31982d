"""Histograms of log10 |gradient|, binned where the gradient lives; exact zeros and non-finite elements come out too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradwatch.records import FloatArray, IntArray
from gradwatch.tags import HISTOGRAM_EDGES

MANTISSA_BITS = 3
"""Eight bins per octave: quantiles within 1.1%, which is what TensorBoard's own bins reach."""

BINS = 1 << (8 + MANTISSA_BITS)
"""Bins by the bits of |float32|: 8 of exponent and 3 of mantissa. No minimum, maximum or logarithm is needed."""

FIRST_NONFINITE = 255 << MANTISSA_BITS
"""The bins from here on hold inf and NaN."""

CHUNK = 1 << 15
"""Elements binned at a time, so that the temporaries stay in the cache: a third of the time of whole tensors."""


@dataclass(frozen=True)
class ElementStats:
    """What one reading of the elements of a gradient gives besides its norm."""

    counts: IntArray
    """int64 [BINS], elements that are not zero, by magnitude."""
    max_abs: float
    """Largest finite magnitude."""
    zeros: int
    numel: int

    @property
    def nonfinite(self) -> int:
        return int(self.counts[FIRST_NONFINITE:].sum())


@torch.no_grad()
def element_stats(values: Tensor) -> ElementStats:
    """Count the elements of a dense real tensor by magnitude; on an accelerator this waits, so it is for sampled steps.

    >>> found = element_stats(torch.tensor([0.0, 1.0, -3.0, float("nan")]))
    >>> found.zeros, found.nonfinite, found.max_abs, found.numel
    (1, 1, 3.0, 4)
    """
    counts = np.zeros(BINS, np.int64)
    largest, nonzero = 0.0, 0
    for chunk in torch.split(values.reshape(-1), CHUNK) if values.numel() else ():
        magnitude = _float32_magnitude(chunk)
        bits = magnitude.view(torch.int32) >> (23 - MANTISSA_BITS)
        counts += torch.bincount(bits, minlength=BINS).cpu().numpy()
        finite = torch.where(torch.isfinite(chunk), chunk, 0)
        largest = max(largest, float(finite.abs().max()))
        nonzero += int(chunk.count_nonzero())
    zeros = values.numel() - nonzero
    counts[0] -= zeros
    return ElementStats(counts, largest, zeros, values.numel())


def log10_counts(counts: IntArray) -> IntArray:
    """From bins by bits to buckets of log10 |gradient| between HISTOGRAM_EDGES; non-finite are left out.

    Args:
        counts: int64 [..., BINS].

    Returns:
        int64 [..., len(HISTOGRAM_EDGES) - 1].
    """
    bucket = np.clip(np.searchsorted(HISTOGRAM_EDGES, _LOG10_CENTRE, side="right") - 1, 0, len(HISTOGRAM_EDGES) - 2)
    out = np.zeros((*counts.shape[:-1], len(HISTOGRAM_EDGES) - 1), np.int64)
    for b in range(out.shape[-1]):
        out[..., b] = counts[..., :FIRST_NONFINITE][..., bucket[:FIRST_NONFINITE] == b].sum(axis=-1)
    return out


def _float32_magnitude(chunk: Tensor) -> Tensor:
    if chunk.dtype is not torch.float64:
        return chunk.float().abs()
    info = torch.finfo(torch.float32)
    magnitude = chunk.abs()
    inside = torch.isfinite(magnitude) & (magnitude > 0)  # finite stays finite, and what is not zero stays so
    return torch.where(inside, magnitude.clamp(info.tiny, info.max), magnitude).float()


def _log10_centres() -> FloatArray:
    exponent, mantissa = np.divmod(np.arange(BINS), 1 << MANTISSA_BITS)
    centres: FloatArray = (exponent - 127) * np.log10(2) + np.log10(1 + (mantissa + 0.5) / (1 << MANTISSA_BITS))
    return centres


_LOG10_CENTRE = _log10_centres()
"""float64 [BINS], log10 of the middle of each bin; what lies below float32's normal range is in the lowest bucket."""
