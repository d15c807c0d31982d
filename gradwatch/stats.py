"""measure(): one pass over the gradients, one vector per step, one copy to the host."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradwatch.histograms import element_stats, log10_counts
from gradwatch.layers import Gradient
from gradwatch.records import BoolArray, FloatArray, IntArray
from gradwatch.tags import HISTOGRAM_EDGES

ROW = 512
"""A large gradient is measured as rows of this many elements: torch's own float32 norm adds all squares into a few
float32 sums and is off by 1e-2 at 1e8 elements (pytorch #68326); rows combined in float64 are exact to 4e-7 even where
all elements are equal, so that all roundings go one way, and, as one call, also use every core."""

EXACT = 2 * ROW
"""Up to this many elements the plain float32 norm is as exact as a row."""

LARGE = 1 << 16
"""Between EXACT and this many elements the norm is taken in float64, 50 us at most; above it by rows."""

SAFE = (1e-14, 1e18)
"""Outside this range the squares of float32 elements may over- or underflow: the norm is taken again in float64."""


@dataclass(frozen=True)
class Measured:
    """The norms of one step on their device, before anything waited for them.

    Args:
        norms: [P], L2 norm of each of the P gradients given to :func:`measure`.
        total_norm: 0-dim, L2 norm over all of them. In float32 it is computed as
            ``torch.nn.utils.get_total_norm`` does, from plain float32 norms up to 65,536 elements each, so that
            clipping agrees bit for bit.
    """

    norms: Tensor
    total_norm: Tensor


@torch.no_grad()
def measure(gradients: Sequence[Tensor]) -> Measured:
    """L2 norm of each gradient, to 1e-6 relative at any size, dtype and scale.

    Sparse gradients are summed first, complex ones count both parts, float16 and bfloat16 are measured in float32.

    Args:
        gradients: P tensors of any shapes, dtypes and devices.

    Example:
        >>> measured = measure([torch.tensor([3.0, 4.0]), torch.full((2,), 1e-30)])
        >>> [f"{n:.4g}" for n in measured.norms.tolist()]
        ['5', '1.414e-30']
    """
    if not gradients:
        return Measured(torch.zeros(0), torch.zeros(()))
    values = [real_values(g) for g in gradients]
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for i, v in enumerate(values):
        groups[v.device, v.dtype].append(i)
    if len(groups) == 1:
        norms, plain = _norms(values)
    else:
        home = values[0].device
        parts = [_norms([values[i] for i in indices])[0].to(home, torch.float64) for indices in groups.values()]
        order = torch.tensor([i for indices in groups.values() for i in indices])
        norms = plain = torch.cat(parts)[torch.argsort(order).to(home)]
    return Measured(norms, torch.linalg.vector_norm(plain))


def real_values(gradient: Tensor) -> Tensor:
    """A dense real tensor with the same elements: what is stored of a sparse gradient, both parts of a complex one."""
    g = gradient.detach()
    if g.layout is not torch.strided:
        g = g.coalesce().values() if g.layout is torch.sparse_coo else g.values()
    if g.is_complex():
        g = torch.view_as_real(g.resolve_conj())
    if g.dtype.itemsize == 1:  # float8 has no arithmetic of its own
        g = g.float()
    return g


def per_layer(norms: FloatArray, rows: Sequence[int], layers: int) -> tuple[FloatArray, BoolArray]:
    """From the norm of each gradient [P] to the norm of each layer [L], and which layers have a gradient.

    >>> norm, has_grad = per_layer(np.array([3.0, 4.0, 0.0]), [0, 0, 2], layers=3)
    >>> norm.tolist(), has_grad.tolist()
    ([5.0, 0.0, 0.0], [True, False, True])
    """
    index = np.array(rows, np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        norm: FloatArray = np.sqrt(np.bincount(index, norms * norms, minlength=layers))
    has_grad: BoolArray = np.bincount(index, minlength=layers) > 0
    return norm, has_grad


class SampledStats(NamedTuple):
    """The dearer statistics of :class:`~gradwatch.records.StepStats`, arrays [L]."""

    max_abs: FloatArray
    zero_fraction: FloatArray
    nonfinite: IntArray
    param_norm: FloatArray
    histogram: IntArray


def sampled_stats(gradients: Sequence[Gradient], layers: int) -> SampledStats:
    """Everything that needs another reading of the gradients and parameters; for one step in a hundred."""
    max_abs, zeros, numel = np.zeros(layers), np.zeros(layers), np.zeros(layers)
    nonfinite = np.zeros(layers, np.int64)
    counts: dict[int, IntArray] = {}
    for _, gradient, row in gradients:
        found = element_stats(real_values(gradient))
        max_abs[row] = max(max_abs[row], found.max_abs)
        elements = gradient.numel() * (2 if gradient.is_complex() else 1)
        zeros[row] += found.zeros + elements - found.numel  # what a sparse gradient does not store is zero
        numel[row] += elements
        nonfinite[row] += found.nonfinite
        counts[row] = counts.get(row, 0) + found.counts
    param_norms = measure([parameter for parameter, _, _ in gradients]).norms.double().cpu().numpy()
    param_norm, _ = per_layer(param_norms, [row for _, _, row in gradients], layers)
    histogram = np.zeros((layers, len(HISTOGRAM_EDGES) - 1), np.int64)
    for row, by_bits in counts.items():
        histogram[row] = log10_counts(by_bits)
    return SampledStats(max_abs, zeros / np.maximum(numel, 1), nonfinite, param_norm, histogram)


class ParameterSample:
    """Up to 1,024 elements of each parameter, kept for one step to see how far the step moved them.

    Args:
        gradients: the gradients whose parameters are about to be updated.
        layers: number of layers.
    """

    SIZE = 1024
    """Elements of a parameter; the estimate of a layer's update is within a few percent of the whole."""

    def __init__(self, gradients: Sequence[Gradient], layers: int) -> None:
        self._layers = layers
        self._rows = [row for _, _, row in gradients]
        self._parameters = [weakref.ref(parameter) for parameter, _, _ in gradients]
        self._before = [self._sample(parameter).clone() for parameter, _, _ in gradients]
        sizes = [real_values(parameter).numel() for parameter, _, _ in gradients]
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


class HostCopy:
    """One vector on its way from the device to the host; on the CPU it is there at once.

    On CUDA the copy goes into pinned memory and an event tells when it has arrived, so nobody waits for the GPU.
    """

    def __init__(self, vector: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if vector.is_cuda:
            self._host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._host.copy_(vector, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(vector.device))
        else:
            self._host = vector.cpu()

    def ready(self) -> bool:
        """Whether :meth:`numpy` returns without waiting."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def numpy(self) -> FloatArray:
        """float64, waits where the copy has not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.double().numpy()


def _norms(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Norms of tensors of one device and dtype, [P], and the same as torch takes them, for the total."""
    wider = {torch.float16: torch.float32, torch.bfloat16: torch.float32}.get(values[0].dtype)
    if values[0].device.type not in ("cpu", "mps"):
        wider = torch.float64  # nothing may wait for the result here, so it must be right at any scale at once
    small = [i for i, v in enumerate(values) if v.numel() <= LARGE]
    norms: list[Tensor] = [torch.empty(0)] * len(values)
    if small:
        for i, norm in zip(small, torch._foreach_norm([values[i] for i in small], 2, wider)):
            norms[i] = norm
    for i, v in enumerate(values):
        if v.numel() > LARGE:
            norms[i] = _large_norm(v, wider)
    stacked = torch.stack(norms)
    if values[0].device.type == "cpu" and stacked.dtype is torch.float32:
        return _refined(stacked, values)
    return stacked, stacked


def _large_norm(values: Tensor, wider: torch.dtype | None) -> Tensor:
    flat = _flat(values)
    whole = flat.numel() // ROW * ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1, dtype=wider)
    tail = torch.linalg.vector_norm(flat[whole:], dtype=wider)
    parts = torch.stack([torch.linalg.vector_norm(rows.double()), tail.double()])
    norm: Tensor = torch.linalg.vector_norm(parts).to(rows.dtype)
    return norm


def _flat(values: Tensor) -> Tensor:
    """The elements in storage order where they fill it without gaps (no copy), else in index order (a copy)."""
    order = sorted(range(values.ndim), key=values.stride, reverse=True)
    flat: Tensor = values.permute(order).flatten()  # a view where it can be
    return flat


def _refined(norms: Tensor, values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """``norms`` with the long ones and those that over- or underflowed taken again in float64; and for the total, those
    of torch unless one was out of range. Only the CPU knows without waiting."""
    host = norms.numpy()
    low, high = SAFE
    doubtful = np.flatnonzero(~((host > low) & (host < high)) & ~np.isnan(host)).tolist()
    out_of_range = [i for i in doubtful if values[i].numel() and _largest(values[i]) > 0]
    redo = out_of_range + [i for i, v in enumerate(values) if EXACT < v.numel() <= LARGE]
    if not redo:
        return norms, norms
    exact = norms.double()
    exact[redo] = torch.stack(torch._foreach_norm([values[i] for i in redo], 2, torch.float64))
    return exact, exact if out_of_range else norms


def _largest(values: Tensor) -> float:
    low, high = torch.aminmax(values)
    return max(-float(low), float(high))
