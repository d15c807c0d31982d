"""measure(): one pass over the gradients, one vector per step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradwatch.records import BoolArray, FloatArray, IntArray

ROW = 4096
"""A long gradient is measured as rows of this many elements. torch's own float32 norm adds all squares into a few
float32 sums: off by 1e-2 at 1e8 elements (pytorch #68326), and by 1e-5 at 65,536 equal ones, where all roundings go one
way. Rows added in float64 are exact to 1e-6 even then."""

TOGETHER = 1 << 17
"""Elements of short gradients measured at once; 1 MB as float64."""

MANY = 32
"""Short gradients from which it pays to copy them into one row."""

SHORT = 512
"""Up to this many elements torch's norm is as exact."""

_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_PLAIN = {*_WIDER, torch.float32, torch.float64}
_FLOATS_ON_CPU = (torch.device("cpu"), torch.float32, torch.strided)

SAFE = (1e-14, 1e18)
"""Outside this range the squares of float32 elements may over- or underflow: the norm is taken again in float64."""


@dataclass(frozen=True)
class Measured:
    """The norms of one step on their device, before anything waited for them.

    Args:
        norms: [P], L2 norm of each of the P gradients given to :func:`measure`.
        total_norm: 0-dim, L2 norm over all of them.
        sharded: whether the gradients are this rank's parts only; the norms are those of the whole all the same.
        names: of the P parameters, as in ``named_parameters()`` without the names of wrappers; () where nobody asked.
        parameters: the P parameters themselves, () where nobody asked.
        scaled: whether a GradScaler skips the step by itself where a gradient is not finite.
        by_torch: float32 [P], the norms as torch has them, to the last bit, where those were taken; else None.
    """

    norms: Tensor
    total_norm: Tensor
    sharded: bool = False
    names: Sequence[str] = ()
    parameters: Sequence[Tensor] = ()
    scaled: bool = False
    by_torch: Tensor | None = None

    @classmethod
    def together(cls, parts: Sequence[Measured]) -> Measured:
        """What was measured in several parts."""
        if len(parts) == 1:
            return parts[0]
        norms = torch.cat([part.norms.to(parts[0].norms) for part in parts]) if parts else torch.zeros(0)
        return cls(norms, torch.linalg.vector_norm(norms))


def measure(gradients: Sequence[Tensor], by_torch: bool = False) -> Measured:
    """L2 norm of each gradient, to 1e-6 relative at any size, dtype and scale; in float64 between 1e-150 and 1e150.

    Sparse gradients are summed first, complex ones count both parts, float16 and bfloat16 are measured in float32.

    Args:
        gradients: P tensors of any shapes, dtypes and devices.
        by_torch: take torch's own norms where they are as exact, as all gradients are short. They cost a third more,
            and clipping as torch does needs them.

    Example:
        >>> measured = measure([torch.tensor([3.0, 4.0]), torch.full((2,), 1e-30)])
        >>> [f"{n:.4g}" for n in measured.norms.tolist()]
        ['5', '1.414e-30']
    """
    if not gradients:
        return Measured(torch.zeros(0), torch.zeros(()))
    kinds = {(g.device, g.dtype, g.layout) for g in gradients}
    plain = all(dtype in _PLAIN and layout is torch.strided for _, dtype, layout in kinds)
    values = list(gradients) if plain else [real_values(g) for g in gradients]
    if by_torch and plain and kinds == {_FLOATS_ON_CPU} and _plan(tuple([v.numel() for v in values])).short:
        with torch.no_grad():
            theirs = torch.stack(torch._foreach_norm(values, 2.0))
        norms = _in_range(theirs.double(), values)
        return Measured(norms, _total(norms), by_torch=theirs)
    if plain and len(kinds) == 1:
        norms = _norms(values)
    else:
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
        for i, v in enumerate(values):
            groups[v.device, v.dtype].append(i)
        parts = [
            _norms([values[i] for i in indices]).to(values[0].device, torch.float64) for indices in groups.values()
        ]
        order = np.argsort([i for indices in groups.values() for i in indices])
        norms = torch.cat(parts)[torch.from_numpy(order).to(values[0].device)]
    return Measured(norms, _total(norms))


def real_values(gradient: Tensor) -> Tensor:
    """A dense real tensor with the same elements: what is stored of a sparse gradient, both parts of a complex one."""
    g = gradient
    if g.layout is not torch.strided:
        g = g.coalesce().values() if g.layout is torch.sparse_coo else g.values()
    if g.is_complex():
        g = torch.view_as_real(g.resolve_conj())
    if g.dtype.itemsize == 1:  # float8 has no arithmetic of its own
        g = g.float()
    return g


def per_layer(norms: FloatArray, rows: Sequence[int] | IntArray, layers: int) -> tuple[FloatArray, BoolArray]:
    """From the norm of each gradient [P] to the norm of each layer [L], and which layers have a gradient.

    A row below 0 belongs to no layer.

    >>> norm, has_grad = per_layer(np.array([3.0, 4.0, 0.0]), [0, 0, 2], layers=3)
    >>> norm.tolist(), has_grad.tolist()
    ([5.0, 0.0, 0.0], [True, False, True])
    """
    places = _places(tuple(rows), layers)
    if places.watched is not None:
        norms = norms[places.watched]
    with np.errstate(over="ignore", invalid="ignore"):
        norm: FloatArray = np.sqrt(np.bincount(places.layer, norms * norms, minlength=layers))
    return norm, places.has_grad.copy()


class _Places(NamedTuple):
    """Where the norms of gradients go: the same at each step of nearly every run."""

    watched: IntArray | None
    """Which of the gradients belong to a layer, None for all."""
    layer: IntArray
    """Of each of those."""
    has_grad: BoolArray


@lru_cache(maxsize=16)
def _places(rows: tuple[int, ...], layers: int) -> _Places:
    index = np.array(rows, np.int64)
    watched = np.flatnonzero(index >= 0)
    index = index[watched]
    return _Places(None if len(watched) == len(rows) else watched, index, np.bincount(index, minlength=layers) > 0)


def _total(norms: Tensor) -> Tensor:
    """0-dim, L2 norm over ``norms``."""
    if norms.device.type != "cpu":
        total: Tensor = torch.linalg.vector_norm(norms)
        return total
    host = norms.numpy()
    return torch.from_numpy(np.array(math.sqrt(host.dot(host))))  # without a call of torch's: they are slow to start


def _norms(values: list[Tensor]) -> Tensor:
    """[P], norms of tensors of one device and dtype."""
    device, dtype = values[0].device.type, values[0].dtype
    if device == "cpu":
        norms = torch.from_numpy(_norms_on_cpu(values))
        return norms if dtype is torch.float64 else _in_range(norms, values)
    # Nothing may wait for the result here, so it must be right at any scale at once; MPS has no float64.
    return _norms_by_rows(values, _WIDER.get(dtype) if device == "mps" else torch.float64)


def _norms_on_cpu(values: list[Tensor]) -> FloatArray:
    """Long gradients row by row, many short ones together: each call costs more than they do."""
    plan = _plan(tuple([v.numel() for v in values]))
    squares = np.zeros(len(values))
    with np.errstate(all="ignore"):  # what over- or underflows is taken again
        if len(plan.alone):
            squares[plan.alone] = _squares_row_by_row([values[i] for i in plan.alone], plan.rows)
        for group, starts in plan.together:
            squares[group] = _squares_together([values[i] for i in group], starts)
        return np.sqrt(squares, out=squares)


class _Plan(NamedTuple):
    """How gradients are read, by their sizes: the same at each step of nearly every run."""

    alone: list[int]
    """Indices of those that are read row by row, one after the other."""
    rows: IntArray
    """Where the rows of each of them begin, and their number."""
    together: list[tuple[list[int], IntArray]]
    """Indices of those that are read together, and where the elements of each begin."""
    short: bool
    """Whether torch's own norm is as exact for all of them."""


@lru_cache(maxsize=16)
def _plan(sizes: tuple[int, ...]) -> _Plan:
    each = np.array(sizes, np.int64)
    groups = [group for group in short_groups(each) if len(group) >= MANY]
    alone = np.setdiff1d(np.flatnonzero(each), np.concatenate([*groups, np.zeros(0, np.int64)]))
    rows = np.append(0, np.cumsum(-(-each[alone] // ROW)))
    together = [(group.tolist(), np.cumsum(each[group]) - each[group]) for group in groups]
    return _Plan(alone.tolist(), rows, together, bool(each.max() <= SHORT))


def short_groups(sizes: IntArray) -> list[IntArray]:
    """The indices of gradients of 1 to ROW elements, in groups of about TOGETHER elements.

    >>> [group.tolist() for group in short_groups(np.array([3, 5000, 0, 2]))]
    [[0, 3]]
    """
    short = np.flatnonzero((sizes <= ROW) & (sizes > 0))
    if not len(short):
        return []
    group = np.cumsum(sizes[short]) // TOGETHER
    return [short] if group[-1] == 0 else np.split(short, np.flatnonzero(np.diff(group)) + 1)


def flattened(values: list[Tensor]) -> Tensor:
    """All elements one after the other, a copy; of tensors of one device and dtype."""
    elements: Tensor = torch._utils._flatten_dense_tensors(values)  # type: ignore[no-untyped-call]
    return elements


def _squares_row_by_row(values: list[Tensor], rows: IntArray) -> FloatArray:
    """By NumPy's dot product, which is faster than torch's norm in the cache and from memory."""
    squares, at = np.empty(rows[-1], np.float64 if values[0].dtype is torch.float64 else np.float32), 0
    for elements in _as_numpy(values):
        whole, rest = divmod(elements.size, ROW)
        if whole:
            body = (elements[:-rest] if rest else elements).reshape(whole, ROW)
            _dot(body, body, squares[at : at + whole])
            at += whole
        if rest:
            tail = elements[-rest:]
            squares[at] = tail.dot(tail)
            at += 1
    sums: FloatArray = np.add.reduceat(squares, rows[:-1], dtype=np.float64)
    return sums


def _squares_together(values: list[Tensor], starts: IntArray) -> FloatArray:
    """Of all elements in one row of float64."""
    squares = np.concatenate([*_as_numpy([flattened(values)])], dtype=np.float64)
    np.square(squares, out=squares)
    sums: FloatArray = np.add.reduceat(squares, starts)
    return sums


def _dot_by_matmul(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """The dot product of each row of ``a`` with that of ``b``, into ``out``."""
    out[:] = np.matmul(a[:, None, :], b[:, :, None])[:, 0, 0]
    return out


_dot: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
_dot = getattr(np, "vecdot", _dot_by_matmul)  # NumPy 2 has vecdot


def _as_numpy(values: Sequence[Tensor]) -> Iterable[FloatArray]:
    """The elements of each, in any order, as NumPy has them; of float16 and bfloat16 in whole rows, as float32."""
    if values[0].dtype in _WIDER:
        return (part.float().numpy(force=True) for v in values for part in torch.split(flat(v), TOGETHER))
    try:
        arrays = [v.numpy() for v in values]
    except RuntimeError:  # one requires a gradient itself, or is the negative of what is stored
        arrays = [v.numpy(force=True) for v in values]
    return [a.ravel("K") for a in arrays]  # copies only where they leave gaps in the memory


@torch.no_grad()
def _norms_by_rows(values: list[Tensor], wider: torch.dtype | None) -> Tensor:
    short = [v if v.numel() <= SHORT else _row_norms(v, wider) for v in values]
    return torch.stack(torch._foreach_norm(short, 2, wider))


def _row_norms(values: Tensor, wider: torch.dtype | None) -> Tensor:
    elements = flat(values)
    whole = elements.numel() // SHORT * SHORT
    rows = torch.linalg.vector_norm(elements[:whole].view(-1, SHORT), dim=1, dtype=wider)
    tail = torch.linalg.vector_norm(elements[whole:], dtype=wider)
    norms: Tensor = torch.cat([rows, tail.view(1)])
    return norms if norms.numel() <= SHORT else _row_norms(norms, wider)


def flat(values: Tensor) -> Tensor:
    """The elements in storage order where they fill it without gaps (no copy), else in index order (a copy)."""
    values = values.resolve_neg()
    if values.is_contiguous():
        return values.view(-1)
    order = sorted(range(values.ndim), key=values.stride, reverse=True)
    elements: Tensor = values.permute(order).flatten().contiguous()
    return elements


def _in_range(norms: Tensor, values: list[Tensor]) -> Tensor:
    """``norms``, those that over- or underflowed taken again in float64; only the CPU knows them without waiting."""
    host = norms.numpy()
    low, high = SAFE
    if np.minimum.reduce(host) > low and np.maximum.reduce(host) < high:
        return norms
    return _in_float64(norms, values, np.flatnonzero(~((host > low) & (host < high)) & ~np.isnan(host)).tolist())


@torch.no_grad()
def _in_float64(norms: Tensor, values: list[Tensor], doubtful: list[int]) -> Tensor:
    """``norms``, those of ``doubtful`` that are not zero taken again."""
    redo = [i for i in doubtful if values[i].numel() and largest(values[i]) > 0]
    if not redo:
        return norms
    exact = norms.double()
    exact[redo] = torch.stack(torch._foreach_norm([values[i] for i in redo], 2, torch.float64))
    return exact


def wide(values: Tensor) -> torch.dtype:
    """The dtype in which the squares of what has vanished do not underflow; MPS has none wider than float32."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def largest(values: Tensor) -> float:
    """The largest magnitude; NaN where there is one. Raises RuntimeError where there are no elements."""
    low, high = torch.aminmax(values)
    return max(-float(low), float(high))
