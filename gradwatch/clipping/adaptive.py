"""Clip each unit by the norm of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.limit import factors, untouched
from gradwatch.clipping.names import Patterns, names_of
from gradwatch.clipping.scale import scale_each_
from gradwatch.patterns import as_patterns, check_number
from gradwatch.records import ClipRecord
from gradwatch.sharding import is_flattened, local_part
from gradwatch.stats import Measured, real_values


@dataclass(eq=False)
class AGC:
    r"""Adaptive gradient clipping: limit the gradient of each unit to a share of the norm of its weights.

    ``G_i <- G_i * min(1, clip_factor * max(|W_i|, eps) / |G_i|)``, a unit ``i`` being what one index of dimension 0
    selects: the weights into one output of Linear and Conv, out of one input of ConvTranspose, of one token of
    Embedding. A parameter of one dimension or none is one unit. So a step moves no unit by more than the learning rate
    times that share of it; and ``eps`` lets those leave zero that start there. It is timm's ``adaptive_clip_grad``, but
    that units with NaN or inf are left alone.

    The authors leave out the last linear layer: with ``exclude``.

    It reads the parameters and the gradients, about what measuring the norms costs, each time; elsewhere than on the
    CPU nothing is looked at, so nothing waits. Of a sharded model units must be whole on a rank: sharded in dimension
    0, as by FSDP2, and those of one dimension not at all.

    Args:
        clip_factor: largest norm of a unit's gradient, relative to the unit's own, above 0. The authors take 0.01, and
            more for smaller batches.
        eps: least norm that counts for a unit, above 0.
        exclude: patterns of the names of parameters or layers to leave alone.

    Raises:
        ValueError: when ``clip_factor`` or ``eps`` is not above 0.
        TypeError: when one is not a number, or ``exclude`` is not patterns.

    Example:
        >>> from gradwatch.stats import measure
        >>> weight, g = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> norms = measure([g])
        >>> stats = Measured(norms.norms, norms.total_norm, names=("fc.weight",), parameters=(weight,))
        >>> record = AGC(clip_factor=0.1, eps=0.01).clip_([g], stats)
        >>> [round(v, 4) for v in g[:, 1].tolist()], float(record.clipped)
        ([0.5, 0.001], 1.0)

    Source: Brock, De, Smith and Simonyan, "High-performance large-scale image recognition without normalization", ICML
    2021, equation 3.
    """

    clip_factor: float = 0.01
    eps: float = 1e-3
    exclude: str | Iterable[str] = ()

    def __post_init__(self) -> None:
        check_number("AGC: clip_factor", self.clip_factor, above=0)
        check_number("AGC: eps", self.eps, above=0)
        self.exclude = as_patterns("AGC: exclude", self.exclude) or ()
        self._excluded = Patterns("AGC: exclude", self.exclude)

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        """Raises ValueError where ``stats`` are without parameters, or a unit is spread over ranks."""
        total: Any = stats.total_norm
        if len(stats.parameters) != len(gradients):
            raise ValueError("AGC clips by the norms of the parameters, and Measured.parameters has none")
        excluded, included = self._split(stats)
        # Of a sharded model there are only this rank's units here, and what is recorded must be the same on all.
        unknown = ClipRecord("agc", total, math.nan, math.nan, self.clip_factor)
        if stats.sharded:
            _check_units_are_whole({stats.names[i]: stats.parameters[i] for i in included})
            included = [i for i in included if gradients[i].numel()]  # it may hold none
        if not included:
            return unknown if stats.sharded else untouched(stats, self.clip_factor, "agc")
        here = [gradients[i] for i in included]
        norms = [_norms_of_units(g, stats.parameters[i]) for g, i in zip(here, included)]
        of_gradient, of_weight = (torch.cat([norm.to(total) for norm in one]) for one in zip(*norms))
        each = factors(of_gradient, self.clip_factor * of_weight.clamp(min=self.eps))
        clipped: Any = (each < 1).to(total.dtype).mean()
        if total.device.type == "cpu" and not clipped > 0:
            return unknown if stats.sharded else untouched(stats, self.clip_factor, "agc")
        for g, factor in zip(here, torch.split(each, [len(of_g) for of_g, _ in norms])):
            _scale_units_(g, factor)
        if stats.sharded:
            return unknown
        others = [stats.norms[i : i + 1] for i in excluded]
        after: Any = torch.linalg.vector_norm(torch.cat([of_gradient * each, *others]))
        return ClipRecord("agc", total, after, math.nan, self.clip_factor, clipped=clipped)

    def check_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise ValueError where a pattern of ``exclude`` matches no name, or no rank has whole units."""
        names = list(parameters)
        self._excluded.check(names)
        _check_units_are_whole({names[i]: parameters[names[i]] for i in self._excluded.split(names)[-1]})

    def _split(self, stats: Measured) -> tuple[list[int], Sequence[int]]:
        """The indices of the parameters that are left out, and of the others."""
        if not self._excluded.patterns:
            return [], range(len(stats.norms))
        names = names_of(stats, "AGC: exclude")
        if names and not self._excluded.checked:
            self._excluded.check(names)
        *excluded, included = self._excluded.split(names)
        return sorted(i for group in excluded for i in group), included


def _check_units_are_whole(parameters: Mapping[str, Tensor]) -> None:
    for name, p in parameters.items():
        if is_flattened(p):
            raise ValueError(
                f"AGC: {name} is cut to pieces by FullyShardedDataParallel, so that no rank has a whole unit: clip by "
                "GlobalNorm or model.clip_grad_norm_(max_norm), or shard by fully_shard()"
            )
        for placement in _spread_units(p):
            raise ValueError(
                f"AGC: {name}, of shape {tuple(p.shape)}, is sharded as {placement!r}, so that no rank has a whole "
                "unit: leave it out by exclude="
            )


def _spread_units(parameter: Any) -> list[Any]:
    """The placements of a sharded parameter that spread each unit over ranks."""
    if not hasattr(parameter, "device_mesh"):
        return []
    return [
        placement
        for size, placement in zip(parameter.device_mesh.shape, parameter.placements)
        if size > 1
        and not placement.is_replicate()
        and not (parameter.ndim > 1 and getattr(placement, "dim", None) == 0)
    ]


def _norms_of_units(gradient: Tensor, parameter: Tensor) -> tuple[Tensor, Tensor]:
    """[U] each: the norms of the units of a gradient, of a sparse one those that it stores, and of their weights."""
    weight = local_part(parameter.detach()).values
    if gradient.layout is torch.strided or gradient.ndim < 2:
        return _norms(gradient), _norms(weight)
    if gradient.sparse_dim() != 1:
        raise ValueError(
            f"AGC: a sparse gradient must be sparse in dimension 0 alone, as Embedding's, got {gradient.sparse_dim()}"
        )
    stored = gradient.coalesce()
    return _norms(stored.values()), _norms(weight.index_select(0, stored.indices()[0]))


def _norms(values: Tensor) -> Tensor:
    """[U], on the CPU in float32, which is much faster there and right to 1e-6 for units of thousands of elements."""
    real = real_values(values)
    # A complex tensor has one dimension more as a real one, and what a sparse vector stores is a vector.
    dims = tuple(range(1, real.ndim)) if values.ndim > 1 else None
    wide = torch.promote_types(real.dtype, torch.float32) if real.device.type in ("cpu", "mps") else torch.float64
    norms: Tensor = torch.linalg.vector_norm(real, dim=dims, dtype=wide)
    if real.device.type == "cpu" and torch.isinf(norms).any():  # squares of float32 overflow
        norms = torch.linalg.vector_norm(real, dim=dims, dtype=torch.float64)
    return norms.view(-1)


def _scale_units_(gradient: Tensor, factor: Tensor) -> None:
    """Multiply each unit by its ``factor`` ([U])."""
    stored = gradient if gradient.layout is torch.strided else gradient.coalesce()
    values = stored if gradient.layout is torch.strided else stored.values()
    wide = factor if values.dtype in (torch.float64, torch.complex128) else factor.float()
    scale_each_([values], [wide.view(-1, *[1] * (values.ndim - 1)) if gradient.ndim > 1 else wide[0]])
    if stored is not gradient:
        gradient.copy_(stored)
