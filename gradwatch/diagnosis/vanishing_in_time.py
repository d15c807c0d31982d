"""Vanishing through time: a recurrent layer that forgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.symptoms import told
from gradwatch.diagnosis.through_time import in_words
from gradwatch.diagnosis.words import PROBE_WOULD_TELL
from gradwatch.history import History
from gradwatch.profile import BackwardProfile, TimeSteps
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called

GATES = {3: "update", 4: "forget"}
"""The gate that keeps the state, of a layer with so many gates and candidates: GRU and LSTM."""


@dataclass(frozen=True)
class VanishingInTime:
    """The recurrent weights, or a closed gate, take most of the gradient away at each time step.

    Example:
        >>> import numpy as np
        >>> from gradwatch.profile import TimeSteps, Weight
        >>> steps = TimeSteps("rnn", np.full(29, 0.25), np.full(30, 1.0))
        >>> weights = (Weight("rnn.weight_ih_l0", 1.0, 8, 32, 32), Weight("rnn.weight_hh_l0", 3.0, 32, 32, 32))
        >>> profile = BackwardProfile(time_steps=(steps,), weights=weights)
        >>> found = VanishingInTime().explain(History(), profile, [Alert(2, "vanishing_in_time", "rnn", 2, 0, 1, "")])
        >>> print(found.evidence[0])
        each of 30 time steps of rnn passes 0.25 of the squared gradient on: over all of them it shrinks 5.4e+08-fold
        >>> print(found.remedy.partition(":")[0])
        multiply the recurrent weights of rnn by 2

    Source: Bengio, Simard and Frasconi, IEEE Trans. Neural Networks 5, 1994; Le, Jaitly and Hinton, 2015 (identity);
    Tallec and Ollivier, ICLR 2018 (biases of gates).
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = told(alerts, "vanishing_in_time")
        if not found:
            return None
        layer = found[0].layer or ""
        seen = _steps(probe, layer)
        evidence = []
        if seen is None:
            share = f"{found[0].value:.2g}" if math.isfinite(found[0].value) else "next to nothing"
            evidence.append(f"the first quarter of the time steps gets {share} of the largest gradient at any of them")
            evidence += [] if probe is not None else [PROBE_WOULD_TELL]
        else:
            evidence.append(in_words(seen))
        gates = _gates(probe, layer)
        gain = math.nan if seen is None else seen.gain_per_step
        if gates in GATES:
            gate, steps = GATES[gates], len(seen.gains) + 1 if seen is not None else 0
            value = f"log(T) for T time steps, {math.log(steps):.2g} here" if steps else "log(T) for T time steps"
            remedy = f"start the bias of the {gate} gate of {called(layer)} at {value}, so that it stays open"
        elif 0 < gain < 1 and seen is not None:
            remedy = (
                f"multiply the recurrent weights of {called(layer)} by {gain**-0.5:.3g}: orthogonal ones of radius 1 "
                "(of ReLU, the identity) pass all of the gradient; or use an LSTM, whose forget gate keeps the state"
            )
        else:
            remedy = (
                f"start the recurrent weights of {called(layer)} orthogonal, of ReLU as the identity; of an LSTM or "
                "GRU, the bias of the gate that keeps the state at log(T) for T time steps"
            )
        return Diagnosis(
            "vanishing_in_time",
            confidence=0.9 if seen is not None else 0.6,
            layers=(layer,) if layer else (),
            evidence=tuple(evidence),
            remedy=remedy,
            change="init_scale",
        )


def _steps(probe: BackwardProfile | None, layer: str) -> TimeSteps | None:
    """Of ``layer``, the way on which most is kept."""
    of_layer = [t for t in (probe.time_steps if probe else ()) if t.layer == layer and len(t.gains)]
    known = [t for t in of_layer if not np.isnan(t.gains).any()]
    return max(known, key=lambda t: t.log_gain) if known else None


def _gates(probe: BackwardProfile | None, layer: str) -> int:
    """How many states wide the recurrent weights of ``layer`` are: 1, or of gated cells more; 0 where unknown."""
    for weight in probe.weights if probe is not None else ():
        owner, _, name = weight.name.rpartition(".")
        if owner == layer and "_hh" in name and weight.fan_in:
            return weight.outputs // weight.fan_in
    return 0
