"""Backward passes made by hand, with the numbers that theory gives, and the alerts that go with them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from gradwatch import Alert, History, Severity, StepStats
from gradwatch.profile import BackwardProfile, Branch, Derivative, FirstNonFinite, Segment, TimeSteps, Weight
from tests.histories import INF, NAN, layers, stats


def alert(rule: str, layer: str | None = "fc0", step: int = 7, **more: Any) -> Alert:
    return Alert(step, rule, layer, more.pop("severity", Severity.ERROR), *(more.pop("value", 1.0), 0.5, ""), **more)


def weight(name: str, gain: float, width: int = 64) -> Weight:
    """A square matrix whose squared gain is ``gain``, as of independent weights of variance ``gain / width``."""
    return Weight(f"{name}.weight", math.sqrt(gain * width), width, width, width)


def activation(name: str, operation: str, gain: float, **more: Any) -> Segment:
    return Segment(f"{name}.act", "activation", operation, gain, 1.0, **more)


def linear(name: str, gain: float, width: int = 64) -> Segment:
    return Segment(name, "weight", "Addmm", gain, 1.0, weight=weight(name, gain, width))


def chain(depth: int, operation: str, passes: float, gain: float, width: int = 64) -> BackwardProfile:
    """``depth`` layers fc0, fc1, ... of one kind and a head that passes 1; no gradient goes through fc0."""
    segments = [linear("head", 1.0, width)]
    for i in reversed(range(1, depth)):
        segments += [activation(f"fc{i}", operation, passes), linear(f"fc{i}", gain, width)]
    segments.append(activation("fc0", operation, passes))
    weights = [weight(f"fc{i}", gain, width) for i in range(depth)]
    return BackwardProfile(tuple(segments), weights=(*weights, weight("head", 1.0, width)))


def first_step(profile: BackwardProfile, **known: Any) -> StepStats:
    """A first step of the profile's layers, its weights as large as they are now and nothing else."""
    names = [w.name.removesuffix(".weight") for w in profile.weights]
    sizes = {"param_norm": np.array([w.norm for w in profile.weights]), **known}
    return replace(stats(0, dict.fromkeys(names, 1.0)), **sizes)


def begun(profile: BackwardProfile, updates: Iterable[float] = (), **known: Any) -> History:
    """A history that begins with :func:`first_step`, and goes on with these updates."""
    history, first = History(), first_step(profile, **known)
    history.append(first)
    for step, update in enumerate(updates, 1):
        history.append(replace(first, step=step, total_update=update, param_norm=None, input_size=None))
    return history


DEAD = Derivative(mean_square=0.0, zero=1.0, small=1.0, elements=100)

BLOCK = Segment("block", "residual", "Add", 101.0, 1.0, skip=1.0, branches=(Branch(100.0),))
NOTHING = BackwardProfile()

PROFILES: dict[str, BackwardProfile] = {
    "nothing": NOTHING,
    "only a note": BackwardProfile(notes=("the model is compiled",)),
    "sigmoids": chain(10, "Sigmoid", 0.05, 1.0),
    "saturated": chain(4, "Tanh", 0.01, 400.0),
    "small": chain(12, "Relu", 0.5, 1 / 3),
    "large": chain(6, "Relu", 0.5, 18.0),
    "deep and narrow": chain(40, "Relu", 0.5, 1.0, width=16),
    "healthy": chain(10, "Relu", 0.5, 2.0),
    "one layer": BackwardProfile((linear("fc0", 2.0),), weights=(weight("fc0", 2.0),)),
    "dead": BackwardProfile((linear("head", 1.0), activation("fc0", "Relu", 0.0, derivative=DEAD))),
    "all zero": BackwardProfile((linear("head", 0.0),), weights=(Weight("head.weight", 0.0, 0, 0, 0),)),
    "NaN": chain(5, "Relu", NAN, NAN),
    "inf": chain(5, "Relu", INF, INF),
    "largest floats": chain(5, "Relu", 1e300, 1e300),
    "smallest floats": chain(5, "Relu", 5e-324, 5e-324),
    "residual": BackwardProfile((BLOCK,) * 6),
    "no branch": BackwardProfile((replace(BLOCK, gain=1.0, branches=()),) * 6),
    "no names": BackwardProfile(tuple(replace(s, layer="") for s in chain(12, "Relu", 0.5, 0.1).segments)),
    "long names": chain(3, "x" * 300, 1e-9, 1e-9),
    "recurrent": BackwardProfile(time_steps=(TimeSteps("fc0", np.full(19, 0.1), np.full(20, 1.0)),)),
    "one time step": BackwardProfile(time_steps=(TimeSteps("fc0", np.empty(0), np.ones(1)),)),
    "time steps of NaN": BackwardProfile(time_steps=(TimeSteps("", np.full(3, NAN), np.full(4, NAN)),)),
    "float16": BackwardProfile(half=True),
    **{
        f"not finite, {where}": BackwardProfile(nonfinite=FirstNonFinite(where, module, operation))
        for where, module, operation in (
            ("forward", "features", "Log"),
            ("forward", "", ""),
            ("backward", "", ""),
            ("backward", "x" * 300, "Unheard"),
            ("input", "", ""),
            ("parameter", "fc0.weight", ""),
        )
    },
}
"""A gallery: faults as theory has them, and all that is odd."""

__all__ = [
    "BLOCK",
    "DEAD",
    "INF",
    "NAN",
    "NOTHING",
    "PROFILES",
    "activation",
    "alert",
    "begun",
    "chain",
    "first_step",
    "layers",
    "linear",
    "weight",
]
