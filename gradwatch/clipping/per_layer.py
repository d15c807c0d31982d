"""Clip by the norm of each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.limit import factors, untouched
from gradwatch.clipping.names import index, layer_of
from gradwatch.clipping.scale import scale_each_
from gradwatch.patterns import check_number
from gradwatch.records import ClipRecord
from gradwatch.sharding import is_flattened
from gradwatch.stats import Measured


@dataclass(frozen=True)
class PerLayer:
    r"""Limit the L2 norm of each layer, a module's own parameters together, on its own.

    ``g <- g * min(1, max_norm / |g|)`` for each layer's ``g``. One layer that explodes does not slow down the others,
    as it does with one factor for all; but the direction of the whole gradient changes, so there is no one coefficient.
    A layer with NaN or inf is left alone.

    It takes the norms that were measured, those of a sharded model too. On the CPU only the layers that are clipped are
    read; elsewhere all are multiplied, a call each, and nothing is looked at, so nothing waits.

    Args:
        max_norm: the largest norm of a layer allowed, above 0.

    Raises:
        ValueError: when ``max_norm`` is not above 0.
        TypeError: when ``max_norm`` is not a number.

    Example:
        >>> g = [torch.tensor([3.0, 4.0]), torch.tensor([0.3])]
        >>> stats = Measured(torch.tensor([5.0, 0.3]), torch.tensor(5.009), names=("0.weight", "2.weight"))
        >>> record = PerLayer(max_norm=1.0).clip_(g, stats)
        >>> [[round(v, 4) for v in values.tolist()] for values in g], float(record.clipped)
        ([[0.6, 0.8], [0.3]], 0.5)

    Source: McMahan, Ramage, Talwar and Zhang, "Learning differentially private recurrent language models", ICLR 2018,
    section 2.2, per-layer clipping.
    """

    max_norm: float

    def __post_init__(self) -> None:
        check_number("PerLayer: max_norm", self.max_norm, above=0)

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        """Where ``stats`` are without names each gradient counts as a layer."""
        total: Any = stats.total_norm
        on_cpu = total.device.type == "cpu"
        # No layer's norm is larger than the total.
        if on_cpu and float(total) <= self.max_norm:
            return untouched(stats, self.max_norm, "per_layer")
        layer, members = _layers(tuple(stats.names), len(gradients))
        padded = torch.cat([stats.norms, stats.norms.new_zeros(1)])
        # The parts of each norm are added in one order, so that all ranks get the same bits.
        norms = torch.linalg.vector_norm(padded[index(members, padded.device)], dim=1)
        each = factors(norms, self.max_norm)
        clipped: Any = (each < 1).to(norms.dtype).mean()
        if on_cpu and not clipped > 0:
            return untouched(stats, self.max_norm, "per_layer")
        scale_each_(gradients, each[index(layer, each.device)].unbind())
        after: Any = torch.linalg.vector_norm(norms * each)
        return ClipRecord("per_layer", total, after, math.nan, self.max_norm, clipped=clipped)

    def check_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise ValueError where one of ``parameters``, by their names, holds many layers."""
        for name, p in parameters.items():
            if is_flattened(p) and name.endswith("_flat_param"):
                raise ValueError(
                    f"PerLayer: {name} holds all layers of a FullyShardedDataParallel: make that with "
                    "use_orig_params=True, or clip by GlobalNorm or model.clip_grad_norm_(max_norm)"
                )


@lru_cache(maxsize=64)
def _layers(names: tuple[str, ...], count: int) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The layer of each of ``count`` parameters, and the parameters of each layer, filled up with ``count``.

    >>> _layers(("0.weight", "0.bias", "2.weight"), 3)
    ((0, 0, 1), ((0, 1), (2, 3)))
    """
    found: dict[str, list[int]] = {}
    for i in range(count):
        found.setdefault(layer_of(names[i]) if names else str(i), []).append(i)
    most = max(map(len, found.values()), default=0)
    members = tuple(tuple(of_layer + [count] * (most - len(of_layer))) for of_layer in found.values())
    layer = {i: n for n, of_layer in enumerate(found.values()) for i in of_layer}
    return tuple(layer[i] for i in range(count)), members
