"""What the first step showed, before the optimizer changed anything: inputs, weights, and how far it moved them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.reference import beside, is_normalised, weight_reference
from gradwatch.history import History
from gradwatch.profile import BackwardProfile, Weight
from gradwatch.records import FloatArray, StepStats

UNSCALED = 3.0
"""Root mean square of a layer's input features from which they are in large units; standardised ones have 1."""

FIRST = 4
"""Steps that count as the first ones."""


@dataclass(frozen=True)
class Inputs:
    """The layer that is given the largest data, and their root mean square."""

    layer: str
    rms: float

    @property
    def are_unscaled(self) -> bool:
        return self.rms > UNSCALED


def inputs(history: History, probe: BackwardProfile | None) -> Inputs | None:
    """None where nothing is known of any, but of those whose size a normalisation right behind takes out again."""
    sizes = [(rms, layer) for layer, rms in zip(history.layers, history.data_rms.tolist()) if math.isfinite(rms)]
    kept = [given for given in sizes if probe is None or not probe.is_normalised_next(given[1])]
    rms, layer = max(kept, default=(math.nan, ""))
    return Inputs(layer, rms) if kept else None


def single_weights(probe: BackwardProfile) -> list[tuple[str, Weight]]:
    """The weights of layers that have no other, with the layers' names, input first."""
    named = [(w.name.rpartition(".")[0], w) for w in probe.weights]
    count = [layer for layer, _ in named]
    return [(layer, w) for layer, w in named if count.count(layer) == 1 and w.fan_in > 0]


def initial_gains(history: History, probe: BackwardProfile) -> dict[str, float]:
    """The squared gain that each layer's weights had at the first step, by their size; in lists, each parameter's.

    Of two sizes the smaller one counts: what was measured at the first step holds the bias as well, and later steps may
    have blown the weights up.
    """
    norms = _initial_norms(history.first)
    found = {}
    for layer, weight in single_weights(probe):
        then = norms.get(layer, math.nan) ** 2 / weight.outputs if weight.outputs else math.nan
        found[layer] = float(np.fmin(weight.isotropic, then))
    for layer, weights in _lists_of_weights(probe).items():
        outputs = sum(w.outputs for w in weights)
        then = norms.get(layer, math.nan) ** 2 / outputs if outputs else math.nan
        found.update({w.name: float(np.fmin(w.isotropic, then)) for w in weights})
    return {layer: gain for layer, gain in found.items() if 0 < gain < math.inf}


def _lists_of_weights(probe: BackwardProfile) -> dict[str, list[Weight]]:
    """The matrices of each nn.ParameterList, which are numbered. Of these the size of all together is known."""
    found: dict[str, list[Weight]] = {}
    for weight in probe.weights:
        owner, _, name = weight.name.rpartition(".")
        if owner and name.isdecimal() and weight.fan_in > 0:
            found.setdefault(owner, []).append(weight)
    return found


def began_at_zero(history: History) -> set[str]:
    """The layers whose parameters were all zero at the first step, as last layers are on purpose."""
    return {layer for layer, norm in _initial_norms(history.first).items() if norm == 0}


def shrunk_weights(history: History, probe: BackwardProfile | None) -> dict[str, float]:
    """The layers whose weights have shrunk since the first step, and what is left of them as a share."""
    norms, found = _initial_norms(history.first), {}
    for layer, weight in [] if probe is None else single_weights(probe):
        then = norms.get(layer, 0.0)
        if weight.norm < SHRUNK * then < math.inf:
            found[layer] = weight.norm / then
    return found if len(found) > 1 else {}


SHRUNK = 0.1
"""Share of a layer's size at the first step, biases included, below which its weights have; biases that large are rare,
and in several layers rarer."""


def initial_biases(history: History, probe: BackwardProfile) -> dict[str, float]:
    """The root mean square of the biases that each layer started with, where its weights have not moved since.

    It is what the first step's size of all parameters has beyond that of the weights.
    """
    norms, found = _initial_norms(history.first), {}
    for layer, weight in single_weights(probe):
        rest = norms.get(layer, math.nan) ** 2 - weight.norm**2
        if rest > BEYOND_ROUNDING * weight.norm**2 and weight.outputs:
            found[layer] = math.sqrt(rest / weight.outputs)
    return found


BEYOND_ROUNDING = 1e-3
"""Share of a layer's squared size that its biases need to be told from rounding and small steps of the weights."""


def initial_norm_weights(history: History, probe: BackwardProfile) -> dict[str, float]:
    """The root mean square of the weights that each normalisation layer started with, its biases being zero."""
    first, found = history.first, {}
    if first is None or first.numel is None:
        return {}
    elements = dict(zip(first.layers, first.numel.tolist()))
    norms = _initial_norms(first)
    for segment in (*beside(probe)[::-1], *probe.segments[::-1]):
        if segment.kind == "norm" and norms.get(segment.layer, 0.0) > 0 and elements[segment.layer] > 1:
            weights = elements[segment.layer] / (1 if segment.operation in WITHOUT_BIAS else 2)
            found[segment.layer] = norms[segment.layer] / math.sqrt(weights)
    return found


WITHOUT_BIAS = frozenset({"FusedRmsNorm"})
"""Normalisations that have none; of others it is taken that they do."""


def excess_of_weights(history: History, probe: BackwardProfile | None) -> dict[str, float]:
    """By how much the log of each layer's initial squared gain is off; {} where nothing is known.

    Nor is it where layers are normalised, which takes the size of weights out again.
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
    known = first_updates(history)
    return float(known[0]) if len(known) else math.nan


def first_updates(history: History) -> FloatArray:
    """The same of the first steps, those that were measured."""
    measured = history.total_update[:FIRST] if history.count == len(history) else np.empty(0)
    return measured[np.isfinite(measured)]


def first_error(history: History) -> float:
    """The gradient norm of the last layer's biases at the first step: of a squared error, twice the mean error.

    NaN where it is not known. That of a cross entropy is 1 at most.
    """
    first = history.first
    if first is None or first.input_size is None:
        return math.nan
    known = np.flatnonzero(np.isfinite(first.input_size))
    return float(first.grad_norm[known[-1]] / math.hypot(1.0, first.input_size[known[-1]])) if len(known) else math.nan


def inputs_explain(history: History, given: Inputs) -> bool:
    """Whether inputs of that size make steps as large as the first one was: the curvature grows with their square.

    Together with targets that are further off than they bring.
    """
    targets = np.fmax(1.0, first_error(history) / given.rms)
    return not first_update(history) > TOO_LARGE * given.rms**2 * targets


TOO_LARGE = 0.03
"""``|step| / |parameters|`` of a first step that is too large."""


def largest_update(history: History) -> float:
    """The largest in the window; NaN of none."""
    known = history.total_update[np.isfinite(history.total_update)]
    return float(known.max()) if len(known) else math.nan


def _initial_norms(first: StepStats | None) -> dict[str, float]:
    return {} if first is None or first.param_norm is None else dict(zip(first.layers, first.param_norm.tolist()))
