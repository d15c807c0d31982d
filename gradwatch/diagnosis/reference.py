"""What healthy layers pass on: measured gains are compared with this, and not with 1."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gradwatch.profile import BackwardProfile, Segment

PASSES: Mapping[str, float] = {
    "Celu": 0.668,
    "Elu": 0.668,
    "Erf": 4 / math.pi,
    "Gelu": 0.456,
    "Hardswish": 0.358,
    "LeakyRelu": 0.5,
    "LogSigmoid": 0.293,
    "Mish": 0.479,
    "PreluKernel": 0.5,
    "Relu": 0.5,
    "Silu": 0.379,
    "Softplus": 0.293,
    "Threshold": 0.5,
}
"""The squared gain of an activation that weights can make up for: E[phi'^2] for normal inputs of variance 1.

Of an odd function it is phi'(0)^2, as its inputs in a deep network at the critical point tend to 0. Others count as 1,
sigmoid among them: weights that make up for its 1/16 drive it into saturation (Schoenholz et al., ICLR 2017).
"""

MOST: Mapping[str, float] = {"Hardsigmoid": 1 / 36, "Sigmoid": 1 / 16}
"""The most that an activation passes at any input, where that is far below 1."""

FLAT_AT_BOTH_ENDS = frozenset({"Erf", "Hardsigmoid", "Hardtanh", "Sigmoid", "Tanh"})

CUT_OFF = frozenset({"Hardshrink", "LeakyRelu", "PreluKernel", "Relu", "Softshrink", "Threshold"})


def passes(operation: str) -> float:
    """The squared gain of a healthy activation.

    >>> passes("Relu"), passes("Sigmoid")
    (0.5, 1.0)
    """
    return PASSES.get(operation, 1.0)


def activations(probe: BackwardProfile) -> list[Segment]:
    """Those of the spine, and of the branches beside it where it has none."""
    on_spine = [s for s in probe.segments if s.kind == "activation"]
    return on_spine or [s for s in beside(probe) if s.kind == "activation"]


def beside(probe: BackwardProfile) -> list[Segment]:
    """The segments of the branches, and of branches of these."""
    found = list(probe.segments)
    for segment in found:  # it grows
        found += [s for branch in segment.branches for s in branch.segments]
    return found[len(probe.segments) :]


def weight_reference(probe: BackwardProfile) -> float:
    """The squared gain of weights that make up for the activations: 2 for ReLU (He et al., ICCV 2015), 1 for tanh.

    >>> weight_reference(BackwardProfile((Segment("act", "activation", "Relu", 0.5, 1.0),)))
    2.0
    """
    logs = [math.log(passes(s.operation)) for s in activations(probe)]
    return math.exp(-math.fsum(logs) / len(logs)) if logs else 1.0


def is_normalised(probe: BackwardProfile) -> bool:
    """Whether layers are normalised, so that the size of their weights cancels."""
    return any(s.kind == "norm" for s in (*probe.segments, *beside(probe)))
