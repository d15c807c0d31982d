"""What to do about weights that are too small or too large."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gradwatch.diagnosis.words import changes, mean_gain, span
from gradwatch.records import Diagnosis

ALIKE = 0.2
"""Factors that are within so much of each other are one."""

CLEAR = 0.4
"""Log squared gain by which a layer's weights are clearly off: one and a half times, or two thirds."""


def rescale(excess: Mapping[str, float], reference: float) -> str:
    """The remedy for layers whose log squared gain is off by ``excess`` from that of ``reference``.

    >>> rescale({"fc0": -1.4, "fc1": -1.4}, 2.0)
    'multiply the initial weights of fc0 and fc1 by 2.01: the squared gain is then 2 per layer, as of He initialisation'
    >>> rescale({"fc0": -1.4, "fc1": -9.0}, 1.0)
    'draw the initial weights of fc0 and fc1 from a normal distribution of standard deviation sqrt(1 / fan_in)'
    """
    factors = [math.exp(-e / 2) for e in excess.values()]
    if max(factors) > (1 + ALIKE) * min(factors):
        he = " (torch.nn.init.kaiming_normal_)" if reference == 2 else ""
        return (
            f"draw the initial weights of {span(list(excess))} from a normal distribution of standard deviation "
            f"sqrt({reference:.3g} / fan_in){he}"
        )
    factor = math.exp(sum(map(math.log, factors)) / len(factors))
    like = ", as of He initialisation" if reference == 2 else ""
    return (
        f"multiply the initial weights of {span(list(excess))} by {factor:.3g}: "
        f"the squared gain is then {reference:.3g} per layer{like}"
    )


def wrong_size(cause: str, confidence: float, excess: Mapping[str, float], reference: float) -> Diagnosis:
    """The diagnosis of weights whose size at the first step alone makes the signal fade or grow."""
    gain, whole = reference * mean_gain(list(excess.values())), math.fsum(excess.values())
    return Diagnosis(
        cause,
        confidence,
        layers=tuple(excess)[:: -1 if whole > 0 else 1],  # what grows is largest at the output
        evidence=(
            f"at the first step the weights of {span(list(excess))} have a squared gain of {gain:.3g} per layer; "
            f"{reference:.2g} would make up for the activations",
            f"by that alone the signal {changes(whole)} over {len(excess)} layers, and so does the gradient",
        ),
        remedy=rescale(excess, reference),
        change="init_scale",
    )
