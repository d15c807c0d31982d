"""Rank collapse: attention without a way around it makes the places of a sequence alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import with_skips
from gradwatch.history import History
from gradwatch.patterns import check_whole_number
from gradwatch.profile import SEVERE, BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class RankCollapse:
    """Each attention averages the places of a sequence, and with no skip connection nothing is left of the difference.

    Where all places are alike it does not matter which of them is attended to: queries and keys get no gradient, while
    that of all other layers looks normal.

    Args:
        min_attentions: one after the other, from which on it is worth saying.

    Raises:
        ValueError: when ``min_attentions`` is below 1.

    Example:
        >>> from gradwatch.profile import Segment
        >>> block = Segment("mlp", "weight", "Addmm", 1.0, 1.0), Segment("attention", "attention", "Bmm", 1.0, 1.0)
        >>> alerts = [Alert(7, "vanishing", "attention.query", 2, 1e-8, 1e-3, "")]
        >>> RankCollapse().explain(History(), BackwardProfile(block * 4), alerts).confidence
        0.8

    Source: Dong, Cordonnier and Loukas, ICML 2021: attention alone loses rank doubly exponentially with depth; Noci et
    al., NeurIPS 2022: the gradients of queries and keys vanish with it.
    """

    min_attentions: int = 2

    def __post_init__(self) -> None:
        check_whole_number("RankCollapse: min_attentions", self.min_attentions, at_least=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        vanishing, whole = told(alerts, "vanishing"), account(probe)
        if not vanishing or probe is None or whole is None or -whole.log_gain > SEVERE / 2:
            return None
        attentions = [s.layer for s in reversed(probe.segments) if s.kind == "attention"]
        if len(attentions) < self.min_attentions or any(s.kind == "residual" for s in probe.segments):
            return None
        layers = layers_of(vanishing)
        return Diagnosis(
            "rank_collapse",
            confidence=0.8,
            layers=layers,
            evidence=(
                f"{len(attentions)} attentions one after the other average the places of a sequence, and no skip "
                "connection leads around any of them",
                f"{len(layers)} layers receive next to nothing, while the gradient as a whole passes",
            ),
            remedy=with_skips(attentions, 2 * len(attentions)),  # an attention and a feed-forward part in each block
            change="residual",
        )
