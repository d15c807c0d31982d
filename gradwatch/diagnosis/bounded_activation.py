"""Bounded activation: an activation whose derivative is far below 1 wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import Entry, account
from gradwatch.diagnosis.largest_first import largest_first
from gradwatch.diagnosis.reference import MOST
from gradwatch.diagnosis.symptoms import told
from gradwatch.diagnosis.words import changes, makes_up, mean_gain, place
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import counted


@dataclass(frozen=True)
class BoundedActivation:
    """The gradient vanishes in sigmoids, which pass at most 1/16 of its square, even where nothing is saturated.

    So it does in a softmax between layers: of n units that are all alike it passes 1 / n^2.

    Args:
        min_share: least share of the total log gain that is worth a diagnosis.

    Raises:
        ValueError: when ``min_share`` is out of range.

    Example:
        >>> from gradwatch.profile import Segment
        >>> layer = Segment("act", "activation", "Sigmoid", 0.05, 1.0), Segment("fc", "weight", "Addmm", 1.0, 0.2)
        >>> alerts = [Alert(7, "vanishing", "fc", 2, 1e-9, 1e-4, "")]
        >>> print(BoundedActivation().explain(History(), BackwardProfile(layer * 6), alerts).remedy)
        replace Sigmoid by ReLU with He initialisation; normalisation layers before the activations help as well

    Source: Glorot and Bengio, AISTATS 2010, section 4.2.
    """

    min_share: float = 0.3
    # With PyTorch's default weights, of squared gain 1/3, sigmoids make up 0.7 of the decay.

    def __post_init__(self) -> None:
        check_number("BoundedActivation: min_share", self.min_share, above=0, at_most=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        whole = account(probe)
        if not told(alerts, "vanishing") or probe is None or whole is None or not whole.shrinks:
            return None
        share = whole.share("bounded")
        if share < self.min_share:
            return None
        activation = _strongest(whole.of("bounded"))
        bounded = [e.segment for e in whole.of("bounded") if e.segment.operation == activation]
        layers = list(dict.fromkeys(s.layer for s in reversed(bounded)))
        passes = mean_gain([s.log_gain for s in bounded])
        at_best = f", at best {MOST[activation]:.2g}" if activation in MOST else ""
        weights = mean_gain([e.segment.log_gain for e in whole.entries if e.segment.kind == "weight"])
        return Diagnosis(
            "bounded_activation",
            confidence=whole.confidence("bounded"),
            layers=largest_first(layers, probe),
            evidence=(
                f"{activation.lower()} passes {passes:.2g} of the squared gradient per layer{place(layers)}{at_best}; "
                f"the weights pass {weights:.2g}; over {counted(len(bounded), 'layer')} the gradient "
                f"{changes(whole.log_gain)}",
                f"its bound {makes_up(share)}",
            ),
            remedy=f"replace {activation} by ReLU with He initialisation; normalisation layers before the activations "
            "help as well",
            change="activation",
        )


def _strongest(bounded: Sequence[Entry]) -> str:
    """Of the activations the one that takes most in all."""
    taken: dict[str, float] = {}
    for entry in bounded:
        taken[entry.segment.operation] = taken.get(entry.segment.operation, 0.0) + entry.excess
    return min(taken, key=lambda operation: taken[operation])
