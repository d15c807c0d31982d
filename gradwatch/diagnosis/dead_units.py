"""Dead units: ReLUs that are zero on every example, so that nothing passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.detached import is_zeroed
from gradwatch.diagnosis.flat_operation import flat_operation
from gradwatch.diagnosis.flat_output import is_cut_at_the_output
from gradwatch.diagnosis.start import initial_biases, largest_update
from gradwatch.diagnosis.symptoms import count_at, layers_of, never_had_one, told
from gradwatch.diagnosis.words import PROBE_WOULD_TELL, place, span
from gradwatch.diagnosis.zero_weights import zero_layers
from gradwatch.history import EARLY, History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile, Segment
from gradwatch.records import Alert, Diagnosis, Severity
from gradwatch.verdict import called, counted


@dataclass(frozen=True)
class DeadUnits:
    """No gradient passes a layer of ReLUs, as none of its inputs is positive.

    Those that are so from the first step on were born dead, of biases far below zero or of layers so narrow that chance
    does it; those that die later die of a step that was too large, if there was one.

    Args:
        min_share: where a vanishing gradient is to be explained, least share of the total log gain.
        large_bias: root mean square of initial biases that outweigh what standardised inputs bring.
        throws: ``|step| / |parameters|`` from which a step may have killed them.
        chance: of being born dead, from which on a network is too narrow; half of it is aimed at.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from gradwatch.profile import Segment, Weight
        >>> act = Segment("act", "activation", "Relu", 0.0, 1.0)
        >>> weights = tuple(Weight(f"fc{i}.weight", 2.0, 2, 2, 2) for i in range(11))
        >>> history = History.from_grad_norms({f"fc{i}": [0.0] * 9 for i in range(10)}, out=[1.0] * 9)
        >>> alerts = [Alert(8, "dead", f"fc{i}", 2, 0.0, 0.0, "") for i in range(10)]
        >>> found = DeadUnits().explain(history, BackwardProfile((act,), weights=weights), alerts)
        >>> print(found.remedy)
        widen fc0 ... fc9 from 2 to 10 units

    Source: Lu et al., Commun. Comput. Phys. 28, 2020: a layer of n units is born dead with probability 2^-n.
    """

    min_share: float = 0.3
    # As for the other causes of a vanishing gradient.
    large_bias: float = 1.0
    # What layers of standardised inputs and He's weights bring has a standard deviation of about 1.4.
    throws: float = 0.02
    # Twice the first steps of healthy networks in docs/detection.md.
    chance: float = 0.02

    def __post_init__(self) -> None:
        check_number("DeadUnits: min_share", self.min_share, above=0, at_most=1)
        check_number("DeadUnits: large_bias", self.large_bias, above=0)
        check_number("DeadUnits: throws", self.throws, above=0)
        check_number("DeadUnits: chance", self.chance, above=0, at_most=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        dead, whole = told(alerts, "dead"), account(probe)
        share = whole.share("dead") if whole is not None and whole.shrinks else 0.0
        if not dead and not (told(alerts, "vanishing") and share >= self.min_share):
            return None
        if (
            is_zeroed(history)
            or zero_layers(history, probe, dead)
            or is_cut_at_the_output(history, probe)
            or flat_operation(whole) is not None
        ):
            return None
        flat = [e.segment for e in whole.of("dead")[::-1]] if whole is not None else []
        layers = _in_order(layers_of(dead), history) or tuple(dict.fromkeys(s.layer for s in flat if s.layer))
        evidence = [*_silent(history), *_passing(flat)]
        starved = [a for a in dead if a.value > 0]  # told of with a gradient: nearly all examples pass nothing on
        if dead and not (evidence or starved):
            return None  # what was zero is zero no more
        if probe is None:
            evidence.append(PROBE_WOULD_TELL)
        if starved:
            evidence.append("few of the examples give the layers behind them anything but zeros")
        born = never_had_one(history, layers) or any(count_at(history, a) < EARLY for a in starved)
        biases = {} if probe is None else initial_biases(history, probe)
        large = {layer: size for layer, size in biases.items() if size >= self.large_bias}
        widths, largest = _widths(probe), largest_update(history)
        chance = 1 - math.prod(1 - 2.0**-n for n in widths.values())
        thrown = not born and largest >= self.throws
        if large and not thrown:
            evidence.append(
                f"{'since the first step: ' * born}the initial biases of {span(list(large))} have a size of "
                f"{max(large.values()):.3g}, which outweighs standardised inputs"
            )
            remedy, change, confidence = f"set the initial biases of {span(list(large))} to 0", "init_scale", 0.9
        elif born and chance >= self.chance:
            narrow = {layer: n for layer, n in widths.items() if 2.0**-n * len(widths) >= self.chance / 2}
            enough = math.ceil(math.log2(2 * len(widths) / self.chance))
            evidence.append(
                f"since the first step: of {counted(len(narrow), 'layer')} of {min(narrow.values())} units the chance "
                f"that one is born dead is {chance:.0%}"
            )
            remedy = f"widen {span(list(narrow))} from {min(narrow.values())} to {enough} units"
            change, confidence = "width", 0.9
        elif not thrown:
            if not born:
                calm = f", and no step moved the weights by more than {largest:.2g}" if largest < self.throws else ""
                evidence.append(f"they had a gradient before{calm}")
            where = f" behind {span(layers)}" if dead and layers else place(layers)
            remedy = f"replace the ReLUs{where} by LeakyReLU, which passes a little everywhere"
            change, confidence = "activation", 0.4
            if probe is not None and not flat:
                evidence.append("no activation was seen that is flat there")
                remedy, confidence = "look for what takes the gradient between these layers and the loss", 0.3
                change = ""
        else:
            evidence.append("they had a gradient before: a step that was too large has killed them")
            remedy, change, confidence = "divide the learning rate by 10", "lr", 0.5
        confidence = min(confidence, 0.3) if probe is None else confidence
        if dead:  # those with the biases first, and of those that are cut off the one that cuts off all before it
            cut_off = layers_of([a for a in dead if a.severity is Severity.ERROR])
            layers = tuple(sorted(layers, key=lambda name: (name in large and not thrown, name in cut_off))[::-1])
        else:
            confidence = round(confidence * min(1.0, share), 2)
        return Diagnosis("dead_units", confidence, layers, tuple(evidence), remedy, change)


def _in_order(names: Sequence[str], history: History) -> tuple[str, ...]:
    """Input first; they may have died at different steps, and be there no more."""
    places = {name: place for place, name in enumerate(history.layers)}
    return tuple(sorted(names, key=lambda name: places.get(name, -1)))


def _silent(history: History) -> list[str]:
    stats = history.latest
    zero = [] if stats is None else [n for n, z in zip(stats.layers, stats.has_grad & (stats.grad_norm == 0)) if z]
    if not zero:
        return []
    last = f", the last of them is {called(zero[-1])}" * (len(zero) > 1)
    return [f"{len(zero)} of {len(history.layers)} layers get a gradient of exactly zero{last}"]


def _passing(flat: Sequence[Segment]) -> list[str]:
    known = [s.derivative.zero for s in flat if s.derivative is not None]
    if not known:
        return []
    where = place([s.layer for s in flat])
    return [f"the derivative of {flat[0].operation}{where} is zero for {float(np.median(known)):.0%} of its inputs"]


def _widths(probe: BackwardProfile | None) -> dict[str, int]:
    """Units of each hidden layer."""
    weights = () if probe is None else probe.weights[:-1]
    return {w.name.rpartition(".")[0]: w.outputs for w in weights if w.outputs > 0}
