"""Clip by the norm of all gradients together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gradwatch.clipping.limit import multiply_, untouched
from gradwatch.patterns import check_number
from gradwatch.records import ClipRecord
from gradwatch.sharding import is_flattened, is_sharded
from gradwatch.stats import Measured, real_values

LARGE = 1 << 20
"""Elements up to which torch's own total on the CPU is asked for: there it is right to about 1e-5, for normally
distributed gradients. Above it is not worth a second reading."""

TOLERANCE = 1e-4
"""Relative error up to which torch's total counts as right, whatever the distribution."""

EPSILON = 1e-6
"""In torch's formula, so that nothing is divided by zero."""

ALL_ELEMENTS = (
    "the largest element may be on another rank: use norm_type=2, or with FullyShardedDataParallel "
    "model.clip_grad_norm_(max_norm, norm_type=float('inf'))"
)

_ROUNDED = {torch.float16, torch.bfloat16}
"""Of these alone torch's total and factor have 3 digits, so they are not asked for."""

_SUMMED = {*_ROUNDED, torch.float32, torch.float64, torch.complex64, torch.complex128}

_torchs_total: Callable[..., Tensor] | None = getattr(nn.utils, "get_total_norm", None)
"""None before torch 2.6."""


@dataclass(frozen=True)
class GlobalNorm:
    r"""Scale all gradients by one factor, so that their total norm is at most ``max_norm``.

    ``g <- g * min(1, max_norm / (|g| + 1e-6))``, as ``torch.nn.utils.clip_grad_norm_``, and bit for bit what that gives
    wherever torch's own total is right: to 1e-4, with no gradient of more than a million elements on the CPU. Where it
    is not, the norms that were measured give the true total: torch's float32 sums on the CPU lose digits in large
    gradients (1e-5 at a million elements, 1e-2 at 100 million), its squares overflow, totals and factors of float16
    and bfloat16 gradients are rounded to 3 digits, it cannot take sparse gradients, and of a sharded model it adds
    in another order. When the total is NaN or inf nothing is changed: one factor cannot mend it, and would spread it.

    On the CPU a step with nothing to clip costs nothing, and one that clips costs a second reading of such gradients,
    for torch's total, unless none has more than 512 elements. Elsewhere both totals are always taken and nothing is
    looked at, so nothing waits.

    Args:
        max_norm: the largest total norm allowed, above 0.
        norm_type: 2, or inf for the largest magnitude of all elements, which takes a second reading of the gradients
            where the L2 norm is above ``max_norm``. The record holds L2 norms all the same.

    Raises:
        ValueError: when ``max_norm`` is not above 0, or ``norm_type`` is another.
        TypeError: when ``max_norm`` is not a number.

    Example:
        >>> from gradwatch.stats import measure
        >>> g = torch.tensor([3.0, 4.0])
        >>> record = GlobalNorm(max_norm=1.0).clip_([g], measure([g]))
        >>> [round(v, 4) for v in g.tolist()], round(float(record.norm_before), 4)
        ([0.6, 0.8], 5.0)

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    algorithm 1.
    """

    by_torch: ClassVar[bool] = True
    """That it is best given torch's own norms, where these are as exact."""

    max_norm: float
    norm_type: float = 2.0

    def __post_init__(self) -> None:
        check_number("GlobalNorm: max_norm", self.max_norm, above=0)
        if self.norm_type not in (2, inf):
            raise ValueError(f"GlobalNorm: norm_type must be 2 or inf, got {self.norm_type!r}")

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        """Raises RuntimeError for ``norm_type=inf`` of a sharded model: this rank's parts may not hold the largest."""
        total: Any = stats.total_norm
        # On the CPU the norm is known for free, and what need not be read is not; elsewhere looking would wait.
        on_cpu = total.device.type == "cpu"
        if on_cpu and not self.max_norm < float(total) * (1 + TOLERANCE) + EPSILON < inf:
            return untouched(stats, self.max_norm, self._name)
        coefficient = self._by_largest(gradients, stats) if self.norm_type == inf else self._by_l2(gradients, stats)
        coefficient = torch.where(torch.isfinite(total), coefficient, 1.0)
        return multiply_(gradients, stats, coefficient, self.max_norm, self._name)

    def check_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise ValueError for ``norm_type=inf`` where one of ``parameters``, by their names, is sharded."""
        for name, p in parameters.items() if self.norm_type == inf else ():
            if is_flattened(p) or is_sharded(p):
                raise ValueError(f"GlobalNorm: norm_type=inf: {name} is sharded, and {ALL_ELEMENTS}")

    def _by_l2(self, gradients: Sequence[Tensor], stats: Measured) -> Tensor:
        total = stats.total_norm
        coefficient = self._coefficient(total)
        theirs = None if stats.sharded else _by_torch(gradients, stats.by_torch)
        if theirs is not None:
            theirs = theirs.to(total.device)
            right = (theirs - total).abs() <= TOLERANCE * total
            coefficient = torch.where(right, self._coefficient(theirs), coefficient).to(theirs.dtype)
        return coefficient

    def _by_largest(self, gradients: Sequence[Tensor], stats: Measured) -> Tensor:
        if stats.sharded:
            raise RuntimeError(f"GlobalNorm: norm_type=inf: {ALL_ELEMENTS}")
        largest = torch.stack([_largest(g).to(stats.total_norm.device) for g in gradients]).max()
        return self._coefficient(largest.float() if largest.dtype in _ROUNDED else largest)

    @property
    def _name(self) -> str:
        return "global_norm" if self.norm_type == 2 else "global_norm_inf"

    def _coefficient(self, total: Tensor) -> Tensor:
        """By torch's operations, to the last bit."""
        return torch.clamp(self.max_norm / (total + EPSILON), max=1.0)


def _by_torch(gradients: Sequence[Tensor], norms: Tensor | None) -> Tensor | None:
    """Their total norm to the last bit of torch's own, 0-dim; None where it has none that can be right.

    Args:
        gradients: to be clipped.
        norms: of each, as torch has them, where they were taken.
    """
    if norms is not None:
        known: Tensor = torch.linalg.vector_norm(norms, 2.0)
        return known
    devices, dtypes = {g.device for g in gradients}, {g.dtype for g in gradients}
    strided = {g.layout for g in gradients} <= {torch.strided}
    if _torchs_total is None or not strided or not dtypes <= _SUMMED or dtypes <= _ROUNDED:
        return None
    if any(g.numel() > LARGE and g.device.type == "cpu" for g in gradients):
        return None
    if len(devices) > 1 or len(dtypes) > 1:
        return _torchs_total(gradients)
    # The same without a look at the device and dtype of each, a third of the cost where they are small.
    total: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients), 2.0)), 2.0)
    return total


def _largest(gradient: Tensor) -> Tensor:
    """Its largest magnitude, 0-dim; 0 where there are no elements."""
    plain = gradient.layout is torch.strided and gradient.dtype.itemsize > 1
    values = gradient if plain else real_values(gradient)
    return torch.linalg.vector_norm(values, inf) if values.numel() else values.real.new_zeros(())
