"""Post-norm: normalisations behind residual sums, each of which takes a part of what the skip passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import changes, mean_gain, place
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import SEVERE, BackwardProfile, Segment
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class PostNorm:
    """The gradient vanishes in blocks that normalise the sum of skip and branch, so that there is no free way along.

    A sum of two parts of one size is divided by sqrt(2), and so is its gradient, in each block.

    Args:
        min_share: least share of the total log gain that is worth a diagnosis.

    Raises:
        ValueError: when ``min_share`` is out of range.

    Example:
        >>> norm = Segment("block.norm", "norm", "NativeLayerNorm", 0.25, 1.0)
        >>> block = Segment("block", "residual", "Add", 1.0, 0.5, skip=1.0)
        >>> alerts = [Alert(7, "vanishing", "embedding", 2, 1e-8, 1e-3, "")]
        >>> found = PostNorm().explain(History(), BackwardProfile((norm, block) * 6), alerts)
        >>> print(found.evidence[0])
        each of 6 normalisations behind a residual sum, and the block before it, passes 0.25 of the squared gradient \
in block.norm

    Source: Xiong et al., ICML 2020: gradients of post-norm transformers, and why they need a warm-up.
    """

    min_share: float = 0.5

    def __post_init__(self) -> None:
        check_number("PostNorm: min_share", self.min_share, above=0, at_most=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        vanishing, whole = told(alerts, "vanishing"), account(probe)
        if not vanishing or probe is None or whole is None or whole.is_cut:
            return None
        pairs = _normalised_sums(probe)
        gains = [norm.log_gain + block.log_gain for norm, block in pairs]
        lost = math.fsum(gains)
        if len(pairs) < 2 or lost > -SEVERE or lost > self.min_share * whole.log_gain:
            return None
        return Diagnosis(
            "post_norm",
            confidence=0.8,
            layers=layers_of(vanishing),
            evidence=(
                f"each of {len(pairs)} normalisations behind a residual sum, and the block before it, passes "
                f"{mean_gain(gains):.2g} of the squared gradient{place([norm.layer for norm, _ in reversed(pairs)])}",
                f"in all of them together the gradient {changes(lost)}",
            ),
            remedy="normalise the input of each branch in place of the sum (pre-norm, as norm_first=True does); or let "
            "the learning rate rise from 0 over the first steps, to a lower one",
            change="norm",
        )


def _normalised_sums(probe: BackwardProfile) -> list[tuple[Segment, Segment]]:
    """Each normalisation with the residual block whose sum it is given, output first."""
    neighbours = zip(probe.segments, probe.segments[1:])
    return [(norm, block) for norm, block in neighbours if norm.kind == "norm" and block.kind == "residual"]
