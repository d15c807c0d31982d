"""What the first step showed, before the optimizer changed anything: inputs, weights, and how far it moved them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.reference import is_normalised, weight_reference
from gradwatch.history import History
from gradwatch.profile import BackwardProfile, Weight
from gradwatch.records import FloatArray

UNSCALED = 3.0
"""Root mean square of a layer's input features from which they are in large units; standardised ones have 1."""

FIRST = 4
"""Steps that count as the first ones."""


@dataclass(frozen=True)
class Inputs:
    """What the first layer was given: the L2 norm of an example, and the root mean square of its features."""

    layer: str
    norm: float
    rms: float

    @property
    def are_unscaled(self) -> bool:
        return self.rms > UNSCALED


def inputs(history: History, probe: BackwardProfile | None) -> Inputs | None:
    """By the first step's gradients: that of a weight is that of the bias times the input. None where that is unknown.

    A layer of several matrices, as a recurrent one, adds up inputs of another kind.
    """
    first, weights = history.first, [] if probe is None else single_weights(probe)
    if first is None or first.input_size is None or not weights or probe is None or not probe.weights:
        return None
    layer, weight = weights[0]
    if weight is not probe.weights[0] or layer not in first.layers:
        return None
    norm = float(first.input_size[first.layers.index(layer)])
    return Inputs(layer, norm, norm / math.sqrt(weight.fan_in)) if math.isfinite(norm) else None


def single_weights(probe: BackwardProfile) -> list[tuple[str, Weight]]:
    """The weights of layers that have no other, with the layers' names, input first."""
    named = [(w.name.rpartition(".")[0], w) for w in probe.weights]
    count = [layer for layer, _ in named]
    return [(layer, w) for layer, w in named if count.count(layer) == 1 and w.fan_in > 0]


def initial_gains(history: History, probe: BackwardProfile) -> dict[str, float]:
    """The squared gain that each layer's weights had at the first step, by their size.

    Of two sizes the smaller one counts: what was measured at the first step holds the bias as well, and later steps may
    have blown the weights up.
    """
    found = {layer: weight.isotropic for layer, weight in single_weights(probe)}
    first = history.first
    if first is not None and first.param_norm is not None:
        norms = dict(zip(first.layers, first.param_norm.tolist()))
        for layer, weight in single_weights(probe):
            if layer in norms and weight.outputs:
                found[layer] = float(np.fmin(found[layer], norms[layer] ** 2 / weight.outputs))
    return {layer: gain for layer, gain in found.items() if 0 < gain < math.inf}


def excess_of_weights(history: History, probe: BackwardProfile | None) -> dict[str, float]:
    """By how much the log of each layer's initial squared gain is off; {} where nothing is known or layers are normalised.

    Normalisation takes the size of weights out again.
    """
    if probe is None or is_normalised(probe):
        return {}
    reference = math.log(weight_reference(probe))
    return {layer: math.log(gain) - reference for layer, gain in initial_gains(history, probe).items()}


def signal(history: History) -> FloatArray:
    """The norms of the layers' inputs at the first step, input first, as far as they are known."""
    first = history.first
    sizes = np.empty(0) if first is None or first.input_size is None else first.input_size
    return sizes[np.isfinite(sizes) & (sizes > 0)]


def first_update(history: History) -> float:
    """``|step| / |parameters|`` that the first step made, NaN where it was not measured or is out of the window."""
    measured = history.total_update[:FIRST] if history.count == len(history) else np.empty(0)
    known = measured[np.isfinite(measured)]
    return float(known[0]) if len(known) else math.nan


def largest_update(history: History) -> float:
    """The largest in the window; NaN of none."""
    known = history.total_update[np.isfinite(history.total_update)]
    return float(known.max()) if len(known) else math.nan
