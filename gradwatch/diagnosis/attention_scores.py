"""Attention scores: an attention that is sure of where it looks passes its queries and keys no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.symptoms import told
from gradwatch.diagnosis.words import changes, makes_up, mean_gain, place
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class AttentionScores:
    """The gradient vanishes in the softmax of an attention, which passes nothing where one score is far above others.

    It may be meant so: an attention that has learned where to look is as sure.

    Args:
        min_share: least share of the total log gain that is worth a diagnosis.

    Raises:
        ValueError: when ``min_share`` is out of range.

    Example:
        >>> from gradwatch.profile import Segment
        >>> values, scores = (Segment("net", "multiply", "Bmm", 30.0, 1.0) for _ in range(2))
        >>> softmax = Segment("net", "attention", "Softmax", 1e-12, 1.0)
        >>> out = Segment("out", "weight", "Addmm", 1.0, 1.0)
        >>> alerts = [Alert(7, "vanishing", "keys", 2, 1e-9, 1e-4, "")]
        >>> found = AttentionScores().explain(History(), BackwardProfile((out, values, softmax, scores)), alerts)
        >>> print(found.remedy)
        divide the scores by the root of the queries' size, or normalise queries and keys before their product

    Source: Vaswani et al., NeurIPS 2017, section 3.2.1: scores of large vectors push the softmax into flat regions.
    """

    min_share: float = 0.3
    # As for the other causes of a vanishing gradient.

    def __post_init__(self) -> None:
        check_number("AttentionScores: min_share", self.min_share, above=0, at_most=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        whole = account(probe)
        if not told(alerts, "vanishing") or whole is None or not whole.shrinks:
            return None
        share, softmaxes = whole.share("scores"), [e.segment for e in whole.of("scores")[::-1]]
        if share < self.min_share:
            return None
        layers = list(dict.fromkeys(s.layer for s in softmaxes))
        return Diagnosis(
            "attention_scores",
            confidence=round(SURE * whole.confidence("scores"), 2),
            layers=tuple(filter(None, layers)),
            evidence=(
                f"the softmax that an attention weighs by{place(layers)} passes "
                f"{mean_gain([s.log_gain for s in softmaxes]):.2g} of the squared gradient: one score is far above the "
                "others",
                f"from the output to the input the gradient {changes(whole.log_gain)}; the softmax {makes_up(share)}",
            ),
            remedy="divide the scores by the root of the queries' size, or normalise queries and keys before their "
            "product",
            change="norm",
        )


SURE = 0.5
"""At most: where training has come to its end it is no fault."""
