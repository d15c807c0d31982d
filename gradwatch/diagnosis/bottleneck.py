"""Bottleneck: the gradient is lost, or blown up, in one place."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import Account, Entry, account
from gradwatch.diagnosis.start import began_at_zero, excess_of_weights
from gradwatch.diagnosis.symptoms import told
from gradwatch.diagnosis.through_time import through_time
from gradwatch.diagnosis.words import changes, drawn_at_random, place
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import SEVERE, BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called


@dataclass(frozen=True)
class Bottleneck:
    """One layer makes the difference: with what others of its kind pass in its place, the gradient would be fine.

    Args:
        severe: log squared gain beyond which depth is a fault, and below which it would be fine.

    Raises:
        ValueError: when ``severe`` is out of range.

    Example:
        >>> from gradwatch.profile import Segment
        >>> act, fc = Segment("act", "activation", "Relu", 0.5, 1.0), Segment("fc", "weight", "Addmm", 2.0, 1.0)
        >>> layers = (act, fc) * 3 + (act, Segment("tight", "weight", "Addmm", 2e-6, 1.0)) + (act, fc) * 3
        >>> alerts = [Alert(7, "vanishing", "fc", 2, 1e-9, 1e-4, "")]
        >>> found = Bottleneck().explain(History(), BackwardProfile(layers), alerts)
        >>> found.layers, found.remedy
        (('tight',), 'multiply the initial weights of tight by 1e+03: it then passes what others do')
    """

    severe: float = SEVERE

    def __post_init__(self) -> None:
        check_number("Bottleneck: severe", self.severe, above=0)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        whole = account(probe)
        sign = 1 if told(alerts, "exploding") else -1 if told(alerts, "vanishing") else 0
        if whole is None or whole.is_cut or sign * whole.log_gain <= self.severe:
            return None
        if sign > 0 and through_time(probe):  # a recurrent layer blows up what it is applied to again and again
            return None
        worst = max(whole.entries, key=lambda e: sign * e.excess)
        lost = worst.excess - _usual(worst, whole)
        rest = whole.log_gain - lost
        began = excess_of_weights(history, probe).get(worst.segment.layer, lost) if worst.fault == "weights" else lost
        if sign > 0 and began < lost / 2:  # a step has blown it up since
            return None
        if not abs(rest) < min(self.severe, abs(whole.log_gain) / 2):
            return None
        name, remedy, change = worst.segment.layer, *_remedy(worst, lost)
        is_zero = worst.fault == "weights" and name in began_at_zero(history)
        if is_zero:  # it wakes up by itself
            remedy = drawn_at_random([name])
        return Diagnosis(
            "bottleneck",
            confidence=0.5 if is_zero else 0.95,
            layers=(name,) if name else (),
            evidence=(
                f"in one place, {worst.segment.operation}{place([name])}, the gradient "
                f"{changes(worst.segment.log_gain)}, "
                f"{math.exp(min(abs(lost) / 2, 700.0)):.2g} times more than where others of its kind are",
                f"from the output to the input it {changes(whole.log_gain)}; without that place it {changes(rest)}",
            ),
            remedy=remedy,
            change=change,
        )


def _usual(worst: Entry, whole: Account) -> float:
    """What others of its fault have beyond a healthy one, in the median; 0 where there is no other."""
    others = [e.excess for e in whole.of(worst.fault) if e is not worst]
    return statistics.median(others) if others else 0.0


def _remedy(worst: Entry, lost: float) -> tuple[str, str]:
    name = called(worst.segment.layer or worst.segment.operation)
    if worst.fault == "weights":
        factor = math.exp(max(min(-lost / 2, 700.0), -700.0))
        return f"multiply the initial weights of {name} by {factor:.3g}: it then passes what others do", "init_scale"
    if worst.segment.kind == "activation":
        return f"put a normalisation before {name}, whose inputs are out of the range of the others'", "norm"
    return f"look for a scale that is off in {name}; a skip connection around it gives the gradient a way", "residual"
