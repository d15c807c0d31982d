"""What sampled steps add: statistics that need another reading of the gradients, and how far a step moved weights."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradwatch.histograms import BINS, element_stats, log10_counts
from gradwatch.layers import Gradients
from gradwatch.records import FloatArray, IntArray
from gradwatch.stats import measure, per_layer, real_values


class SampledStats(NamedTuple):
    """The dearer statistics of :class:`~gradwatch.records.StepStats`, arrays [L]."""

    max_abs: FloatArray
    zero_fraction: FloatArray
    nonfinite: IntArray
    param_norm: FloatArray
    histogram: IntArray


@torch.no_grad()
def sampled_stats(gradients: Gradients, layers: int) -> SampledStats:
    """Everything that needs another reading of the gradients and parameters; for one step in a hundred."""
    max_abs, zeros, numel = np.zeros(layers), np.zeros(layers), np.zeros(layers)
    nonfinite = np.zeros(layers, np.int64)
    counts = np.zeros((layers, BINS), np.int64)
    for gradient, row in zip(gradients.values, gradients.rows):
        found = element_stats(real_values(gradient))
        max_abs[row] = max(max_abs[row], found.max_abs)
        elements = gradient.numel() * (2 if gradient.is_complex() else 1)
        zeros[row] += found.zeros + elements - found.numel  # what a sparse gradient does not store is zero
        numel[row] += elements
        nonfinite[row] += found.nonfinite
        counts[row] += found.counts
    param_norms = measure(gradients.parameters).norms.double().cpu().numpy()
    param_norm, _ = per_layer(param_norms, gradients.rows, layers)
    return SampledStats(max_abs, zeros / np.maximum(numel, 1), nonfinite, param_norm, log10_counts(counts))


class ParameterSample:
    """Up to 1,024 elements of each parameter, kept for one step to see how far the step moved them.

    Args:
        gradients: the gradients whose parameters are about to be updated.
        layers: number of layers.
    """

    SIZE = 1024
    """Elements of a parameter; the estimate of a layer's update is within a few percent of the whole."""

    @torch.no_grad()
    def __init__(self, gradients: Gradients, layers: int) -> None:
        self._layers = layers
        self._rows = gradients.rows
        self._parameters = [weakref.ref(parameter) for parameter in gradients.parameters]
        self._before = [self._sample(parameter).clone() for parameter in gradients.parameters]
        sizes = [real_values(parameter).numel() for parameter in gradients.parameters]
        self._weights = np.array([size / max(b.numel(), 1) for size, b in zip(sizes, self._before)])

    @torch.no_grad()
    def update_ratio(self) -> FloatArray:
        """float64 [L], ``|change| / |parameters|`` since the sample; NaN for a layer that is unknown or was zero."""
        now = [p if (p := ref()) is None else self._sample(p) for ref in self._parameters]
        known = [n is not None and n.shape == b.shape for n, b in zip(now, self._before)]
        kept = [(n, b, r, w) for n, b, r, w, k in zip(now, self._before, self._rows, self._weights, known) if k]
        change = measure([n - b for n, b, _, _ in kept if n is not None]).norms.double().cpu().numpy()
        size = measure([b for _, b, _, _ in kept]).norms.double().cpu().numpy()
        scale = np.sqrt(np.array([w for _, _, _, w in kept]))
        rows = [r for _, _, r, _ in kept]
        moved, _ = per_layer(change * scale, rows, self._layers)
        norm, _ = per_layer(size * scale, rows, self._layers)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(norm > 0, moved / norm, np.nan)

    def _sample(self, parameter: Tensor) -> Tensor:
        flat = real_values(parameter).reshape(-1)
        stride = max(1, -(-flat.numel() // self.SIZE))
        return flat[:: stride | 1]  # an even stride would meet the same columns of every row
