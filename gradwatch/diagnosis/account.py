"""The account of a backward pass: what each fault adds to the total log gain, so that shares make up the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.reference import CUT_OFF, FLAT_AT_BOTH_ENDS, MOST, passes, weight_reference
from gradwatch.diagnosis.through_time import through_time
from gradwatch.profile import DEEP, ENDS, SEVERE, BackwardProfile, Segment

NOTABLE = 2.0
"""Log gain of the squared gradient below which depth explains nothing: healthy networks vary as much."""


@dataclass(frozen=True)
class Entry:
    """A segment's log gain beyond that of a healthy one, and the fault that it speaks for."""

    segment: Segment
    fault: str
    excess: float


@dataclass(frozen=True)
class Account:
    """The log gain from the last layer to the input, beyond that of a healthy network of the same layers.

    Args:
        entries: from the last layer to the input; where the gradient becomes zero they end.

    Example:
        >>> act, fc = Segment("act", "activation", "Sigmoid", 0.04, 1.0), Segment("fc", "weight", "Addmm", 0.5, 1.0)
        >>> whole = account(BackwardProfile((fc, act) * 10))
        >>> {fault: round(whole.share(fault), 2) for fault in ("bounded", "saturation", "weights")}
        {'bounded': 0.71, 'saturation': 0.11, 'weights': 0.18}
    """

    entries: tuple[Entry, ...]

    @property
    def log_gain(self) -> float:
        """Of the squared gradient, the sum over the entries; -inf where nothing arrives."""
        return math.fsum(e.excess for e in self.entries)

    @property
    def is_cut(self) -> bool:
        """Whether the gradient becomes exactly zero on its way."""
        return bool(self.entries) and self.entries[-1].excess == -math.inf

    @property
    def shrinks(self) -> bool:
        """Whether it takes enough of the gradient away to be worth an explanation."""
        return self.log_gain < -NOTABLE

    def of(self, fault: str) -> list[Entry]:
        """The entries that speak for ``fault``."""
        return [e for e in self.entries if e.fault == fault]

    def share(self, fault: str) -> float:
        """What ``fault`` makes of the whole; below 0 where it works against it. All shares together are 1."""
        if self.is_cut:
            return float(self.entries[-1].fault == fault)
        whole = self.log_gain
        return math.fsum(e.excess for e in self.of(fault)) / whole if whole else 0.0

    def confidence(self, fault: str) -> float:
        """The share of ``fault``, less where the whole is not much: below SEVERE the network may well train."""
        return round(min(max(self.share(fault), 0.0), 1.0) * min(1.0, abs(self.log_gain) / SEVERE), 2)


def account(probe: BackwardProfile | None) -> Account | None:
    """The account of ``probe``; None where there is no profile, or something in it is not finite."""
    if probe is None:
        return None
    # Where layers are normalised the size of weights cancels: the two are one.
    reference = None if any(s.kind == "norm" for s in probe.segments) else weight_reference(probe)
    segments = [s for s in _from_the_last_layer(probe) if s.kind not in ENDS]
    cut = next((i for i, s in enumerate(segments) if s.gain == 0), len(segments))
    recurrent = {t.layer for t in through_time(probe)}
    entries: list[Entry] = []
    for i, s in enumerate(segments[: cut + 1]):
        fault = "time" if s.layer in recurrent else "scores" if _weighs(segments, i) else ""
        entries += [Entry(s, fault, s.log_gain)] if fault else _entries(s, reference)
    if not entries or any(math.isnan(e.excess) or e.excess == math.inf for e in entries):
        return None
    return Account(tuple(entries))


def _from_the_last_layer(probe: BackwardProfile) -> Sequence[Segment]:
    """Without the activations at the model's output: what they take all layers lack alike.

    Where several heads follow, their weights are none of the spine, and the activation before them lies between layers.
    """
    layers = [i for i, s in enumerate(probe.segments) if s.kind in DEEP and not _is_softmax(s)]
    last = probe.segments[layers[0]].weight if layers else None
    if last is None or (probe.weights and probe.weights[-1].name != last.name):
        return probe.segments
    at_output = probe.segments[: layers[0]]
    return [s for s in at_output if not (s.kind == "activation" or _is_softmax(s))] + [*probe.segments[layers[0] :]]


def _is_softmax(segment: Segment) -> bool:
    return segment.kind == "attention" and segment.operation == "Softmax"


def _weighs(segments: Sequence[Segment], i: int) -> bool:
    """Whether the i-th is a softmax whose output other data are multiplied with: that of an attention."""
    behind = next((s for s in reversed(segments[:i]) if s.kind != "dropout"), None)
    is_product = behind is not None and behind.kind == "multiply" and behind.operation in PRODUCTS
    return is_product and _is_softmax(segments[i])


PRODUCTS = frozenset({"Baddbmm", "Bmm", "Mm"})
"""Matrix products; where neither factor is a parameter, both are data."""


def _entries(segment: Segment, weight_gain: float | None) -> list[Entry]:
    name, log_gain = segment.operation, segment.log_gain
    if segment.kind == "weight":
        normalised = weight_gain is None
        return [Entry(segment, "norm" if normalised else "weights", log_gain - math.log(weight_gain or 1.0))]
    if _is_softmax(segment):  # by itself, between layers
        return [Entry(segment, "bounded", log_gain)]
    if segment.kind != "activation":
        return [Entry(segment, segment.kind, log_gain)]
    if name in MOST:
        most = math.log(MOST[name])
        return [Entry(segment, "bounded", most), Entry(segment, "saturation", log_gain - most)]
    fault = "saturation" if name in FLAT_AT_BOTH_ENDS else "dead" if name in CUT_OFF else "activation"
    return [Entry(segment, fault, log_gain - math.log(passes(name)))]
