"""Small weights: signal and gradient fade together, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.largest_first import largest_first
from gradwatch.diagnosis.reference import weight_reference
from gradwatch.diagnosis.rescaling import CLEAR, rescale, wrong_signal, wrong_size
from gradwatch.diagnosis.start import began_at_zero, excess_of_weights, shrunk_weights
from gradwatch.diagnosis.symptoms import count_at, told
from gradwatch.diagnosis.words import changes, makes_up, mean_gain, span
from gradwatch.history import EARLY, History
from gradwatch.patterns import check_number
from gradwatch.profile import SEVERE, BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import counted


@dataclass(frozen=True)
class SmallWeights:
    """The gradient vanishes since the weights pass less than makes up for the activations.

    ReLU's half is no fault: weights of squared gain 2 make up for it. PyTorch's default of 1/3 is one.

    Args:
        min_share: least share of the total log gain that is worth a diagnosis.
        min_fading: without a probed step, how many times the signal must shrink from the first to the last layer.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from gradwatch.profile import Segment
        >>> layer = Segment("act", "activation", "Relu", 0.5, 1.0), Segment("fc", "weight", "Addmm", 1 / 3, 0.2)
        >>> alerts = [Alert(7, "vanishing", "fc", 2, 1e-9, 1e-4, "")]
        >>> found = SmallWeights().explain(History(), BackwardProfile(layer * 12), alerts)
        >>> found.confidence, found.evidence[0]
        (0.9, 'the weights of fc pass 0.33 of the squared gradient per layer; 2 would make up for the activations')

    Source: He et al., ICCV 2015, equation 14; Schoenholz et al., ICLR 2017, chi_1 below 1.
    """

    min_share: float = 0.3
    # What the largest of three faults has at least.
    min_fading: float = 5.0
    # Inputs of healthy networks' last layers are a third to three times as large as the first one's.

    def __post_init__(self) -> None:
        check_number("SmallWeights: min_share", self.min_share, above=0, at_most=1)
        check_number("SmallWeights: min_fading", self.min_fading, above=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        if not told(alerts, "vanishing", "dead") or shrunk_weights(history, probe):
            return None
        whole = account(probe)
        if probe is None:
            return wrong_signal("small_weights", history, self.min_fading, grows=False)
        if whole is None or whole.is_cut or not whole.shrinks:
            return self._by_size(history, probe) if _from_the_start(history, alerts) else None
        zero = began_at_zero(history)  # those wake up, and no factor makes them larger
        weights = [e for e in whole.of("weights")[::-1] if e.segment.layer not in zero]
        weights = [e for e in weights if e.segment.weight is not None] or weights  # others are no layers' own
        share = whole.share("weights")
        if share < self.min_share or not weights:
            return None
        reference, gain = weight_reference(probe), mean_gain([e.segment.log_gain for e in weights])
        seen = {e.segment.layer: e.excess for e in weights}
        off = {layer: e for layer, e in (excess_of_weights(history, probe) or seen).items() if e < -CLEAR}
        about = {*seen, *(e.segment.weight.name for e in weights if e.segment.weight is not None)}
        off = off if about & off.keys() else seen
        return Diagnosis(
            "small_weights",
            confidence=round(0.9 * whole.confidence("weights"), 2),
            layers=largest_first(off, probe),
            evidence=(
                f"the weights of {span(list(seen))} pass {gain:.2g} of the squared gradient per layer; "
                f"{reference:.2g} would make up for the activations",
                f"over {counted(len(weights), 'layer')} the gradient {changes(whole.log_gain)}; that weights are too "
                f"small {makes_up(share)}",
            ),
            remedy=rescale(off, reference),
            change="init_scale",
        )

    def _by_size(self, history: History, probe: BackwardProfile) -> Diagnosis | None:
        """Where no gradient is left to look at, or the network has woken up, by what the weights were at first."""
        off = {layer: e for layer, e in excess_of_weights(history, probe).items() if e < -CLEAR}
        if math.fsum(off.values()) > -SEVERE:
            return None
        return wrong_size("small_weights", 0.8, off, weight_reference(probe))


def _from_the_start(history: History, alerts: Sequence[Alert]) -> bool:
    """Whether the gradient vanished, or units were dead as the run began: later they die of something else."""
    dead = [count_at(history, alert) for alert in told(alerts, "dead")]
    return bool(told(alerts, "vanishing")) or any(steps <= 2 * EARLY for steps in dead)
