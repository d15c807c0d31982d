"""Vanishing: a layer's gradient is lost on its way from the output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from gradwatch.history import History
from gradwatch.patterns import PerLayer
from gradwatch.records import FloatArray, IntArray, Severity
from gradwatch.rules.base import Judgement, LayerRule
from gradwatch.rules.state import LayerState


@dataclass
class Vanishing(LayerRule):
    """A layer's gradient norm stays far below that of the layers after it, or near zero from the start.

    The comparison with later layers makes the rule free of scale: a small loss, a converged run or half-precision loss
    scaling shrink all layers alike. A bias is judged together with the weight beside it: before a normalisation it has
    no gradient by design. A gradient of exactly zero is for :class:`~gradwatch.rules.Dead`, unless layers
    after it are vanishing too: then it underflowed.

    Args:
        ratio: limit of the norm, relative to the largest norm among the layer itself and those after it.
        threshold: absolute limit of the norm, for a layer that never was ten times above it in this run.
        patience: steps in a row before the alert.
        recovery: steps in a row above twice the limit before the episode is over.
        warmup: steps at the start that are not judged: branches initialised to zero come alive there.

    Each limit is a number, or a number per pattern of layer names: ``{"encoder.*": 1e-5}``.

    Raises:
        ValueError: when an argument is out of range.
        TypeError: when it is not a number.

    Example:
        >>> rule = Vanishing(ratio=1e-3, patience=3, warmup=0)
        >>> for alert in rule.check(History.from_grad_norms(fc1=[2e-9] * 5, fc2=[0.5] * 5)):
        ...     print(alert.message)
        fc1: gradient norm 2e-09 stayed below 0.0005 for 3 steps

    Source: Glorot and Bengio, AISTATS 2010, section 4.2, for the decay along depth; the relative limit follows
    AutoTrainer (Zhang et al., ICSE 2021), which compares the first layer with the last.
    """

    name: ClassVar[str] = "vanishing"
    severity: ClassVar[Severity] = Severity.ERROR

    ratio: PerLayer = 1e-4
    # AutoTrainer takes 1e-3 together with an absolute limit of 1e-4; a tenth of it needs no absolute scale.
    threshold: PerLayer = 1e-7
    # SageMaker's limit for the mean |gradient|; as a limit of the norm it is met far later.
    patience: int = 20
    # Longer than a zero-initialised branch needs to come alive, shorter than 2% of a 1,000-step run.
    recovery: int = 5
    warmup: int = 10

    def __post_init__(self) -> None:
        self._check_limit("ratio", above=0, at_most=1)
        self._check_limit("threshold", at_least=0)
        self._check_steps("warmup", at_least=0)
        super().__post_init__()

    def is_calm(self, history: History) -> bool:
        stats = history.latest
        assert stats is not None
        norm, (least, largest) = stats.grad_norm, stats.norm_range
        ratio, threshold = self.highest("ratio"), self.highest("threshold")
        if not largest < np.inf:
            return False
        if least < max(ratio * largest, threshold):
            limit = np.maximum(ratio * _from_here_on(norm), threshold)
            if np.logical_or.reduce(stats.has_grad & (norm < limit) & (norm[_weight_beside(stats.layers)] < limit)):
                return False
        self._remember_peak(norm, stats.layers)
        return True

    def judge(self, history: History) -> Judgement:
        stats = history.latest
        assert stats is not None
        norm = stats.grad_norm
        present = stats.has_grad & np.isfinite(norm)
        relative = self.limit("ratio", stats.layers) * _from_here_on(np.where(present, norm, 0.0))
        absolute = self.limit("threshold", stats.layers)
        self._remember_peak(np.where(present, norm, 0.0), stats.layers)
        never_above = self._peak["norm"] < 10 * absolute
        limit = np.where(never_above, np.maximum(relative, absolute), relative)
        small = present & (norm < limit) & (norm[_weight_beside(stats.layers)] < limit)
        last_nonzero = np.flatnonzero(small & (norm > 0))[-1:]
        after = np.arange(len(norm)) < (last_nonzero[0] if len(last_nonzero) else 0)
        bad = small & ((norm > 0) | after) & (history.count > self.warmup)
        return Judgement(norm, limit, bad, good=present & (norm > 2 * limit))

    def _remember_peak(self, norm: FloatArray, layers: tuple[str, ...]) -> None:
        self._peak.align(layers)
        self._peak["norm"] = np.fmax(self._peak["norm"], norm)

    def reset(self) -> None:
        super().reset()
        self._peak = self._remembered["peak"] = LayerState(norm=0.0)

    def describe(self, value: float, threshold: float) -> str:
        return f"gradient norm {value:.3g} stayed below {threshold:.3g} for {self.patience} steps"


def _from_here_on(norm: FloatArray) -> FloatArray:
    """The largest norm among each layer itself and those after it, float64 [L]."""
    return np.maximum.accumulate(norm[::-1])[::-1]


@lru_cache(maxsize=8)
def _weight_beside(layers: tuple[str, ...]) -> IntArray:
    """For each parameter ``x.bias`` the index of ``x.weight`` where there is one, else its own; int64 [L]."""
    index = {name: i for i, name in enumerate(layers)}
    return np.array([index.get(name.removesuffix("bias") + "weight", i) for i, name in enumerate(layers)], np.int64)
