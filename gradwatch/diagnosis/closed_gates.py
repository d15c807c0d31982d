"""Closed gates: what the signal is multiplied by is next to zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.start import initial_biases
from gradwatch.diagnosis.symptoms import told
from gradwatch.diagnosis.words import changes, makes_up, mean_gain, place, span, with_skips
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class ClosedGates:
    """The gradient vanishes where the signal is multiplied by gates, as of a highway or a gated linear unit.

    A sigmoid gate that begins at a bias of -5 lets 0.7% of the signal through, and of the gradient.

    Args:
        min_share: least share of the total log gain that is worth a diagnosis.
        large_bias: root mean square of initial biases that close a gate.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from gradwatch.profile import Segment
        >>> gate, fc = Segment("glu", "multiply", "Mul", 5e-5, 1.0), Segment("fc", "weight", "Addmm", 1.0, 0.2)
        >>> alerts = [Alert(7, "vanishing", "fc", 2, 1e-9, 1e-4, "")]
        >>> found = ClosedGates().explain(History(), BackwardProfile((gate, fc) * 3), alerts)
        >>> print(found.evidence[0])
        what the signal is multiplied by in glu passes 5e-05 of the squared gradient each time

    Source: Srivastava, Greff and Schmidhuber, "Highway networks", 2015, section 3.1, for biases of gates.
    """

    min_share: float = 0.3
    # As for the other causes of a vanishing gradient.
    large_bias: float = 1.0
    # Highways begin at -1 to -4 on purpose, but pass the signal around the gate as well.

    def __post_init__(self) -> None:
        check_number("ClosedGates: min_share", self.min_share, above=0, at_most=1)
        check_number("ClosedGates: large_bias", self.large_bias, above=0)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        whole = account(probe)
        if not told(alerts, "vanishing") or probe is None or whole is None or not whole.shrinks:
            return None
        share = whole.share("multiply")
        gates = [e.segment for e in whole.of("multiply")[::-1] if e.segment.operation == "Mul"]
        if share < self.min_share or not gates:
            return None
        names = list(dict.fromkeys(s.layer for s in gates))
        passes = mean_gain([s.log_gain for s in gates])
        evidence = [
            f"what the signal is multiplied by{place(names)} passes {passes:.2g} of the squared gradient each time",
            f"from the output to the input the gradient {changes(whole.log_gain)}; that {makes_up(share)}",
        ]
        biases = initial_biases(history, probe)
        large = {
            layer: size
            for layer, size in biases.items()
            if size >= self.large_bias and any(layer.startswith(f"{name}.") for name in names if name)
        }
        confidence = round(whole.confidence("multiply") / 2, 2)
        remedy, change = with_skips(names, len(gates)), "residual"
        if large:
            evidence.append(f"the initial biases of {span(list(large))} have a size of {max(large.values()):.3g}")
            remedy, change = f"set the initial biases of {span(list(large))} to 0", "init_scale"
            confidence = 0.95
        layers = tuple(filter(None, names))
        return Diagnosis("closed_gates", confidence, layers, tuple(evidence), remedy, change)
