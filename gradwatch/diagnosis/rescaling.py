"""What to do about weights that are too small or too large."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from gradwatch.diagnosis.start import signal
from gradwatch.diagnosis.words import PROBE_WOULD_TELL, changes, mean_gain, span
from gradwatch.history import History
from gradwatch.records import Diagnosis
from gradwatch.verdict import counted

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
        layers=_worst_first(excess, grows=whole > 0),
        evidence=(
            f"at the first step the weights of {span(list(excess))} have a squared gain of {gain:.3g} per layer; "
            f"{reference:.2g} would make up for the activations",
            f"by that alone the signal {changes(whole)} over {counted(len(excess), 'layer')}, and so does the gradient",
        ),
        remedy=rescale(excess, reference),
        change="init_scale",
    )


def wrong_signal(cause: str, history: History, least: float, grows: bool) -> Diagnosis | None:
    """The same where no step was probed: by what reaches the layers at the first step, ``least`` times more or less."""
    sizes = signal(history)
    if history.first is None or len(sizes) < 3:
        return None
    first, last = sizes[0], sizes[-1]
    if (last < least * first) if grows else (first < least * last):
        return None
    factor = float((first / last) ** (1 / (len(sizes) - 1)))
    found = f"at the first step the layers' inputs {'grow' if grows else 'shrink'} from {first:.2g} to {last:.2g} on "
    found += "their way to the output"
    if not grows:
        found += f", {factor:.2g}-fold per layer, and the gradient on its way back"
    return Diagnosis(
        cause,
        confidence=0.5,
        layers=_worst_first((n for n, known in zip(history.first.layers, history.first.has_grad) if known), grows),
        evidence=(found, PROBE_WOULD_TELL),
        remedy=f"multiply the initial weights of every layer by {factor:.3g}",
        change="init_scale",
    )


def _worst_first(layers: Iterable[str], grows: bool) -> tuple[str, ...]:
    """Of layers, input first: what grows is largest at the output."""
    return tuple(layers)[:: -1 if grows else 1]
