"""Depth profile: without a probed step, how the layers' gradient norms change along depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import PROBE_WOULD_TELL
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis, FloatArray
from gradwatch.verdict import called

WINDOW = 20
"""Steps whose median makes the profile: enough to see through one bad batch."""

AT_MOST = 0.4
"""Confidence without a look into the backward pass: a profile along depth has many causes."""


@dataclass(frozen=True)
class DepthProfile:
    """Fits the log of the layers' gradient norms against their depth, input first, where no step was probed.

    A geometric profile is what repeated multiplication by the same activation derivative and weights leaves: vanishing
    when one layer passes less than 1, exploding when it passes more.

    Args:
        min_factor: the least total change that is worth a diagnosis.

    Raises:
        ValueError: when ``min_factor`` is not above 1.

    Example:
        >>> norms = {f"fc{i}": [0.1 ** (9 - i)] * 40 for i in range(10)}
        >>> alerts = [Alert(39, "vanishing", "fc0", 2, 1e-9, 1e-4, "")]
        >>> print(DepthProfile().explain(History.from_grad_norms(norms), None, alerts).evidence[0])
        the median gradient norm falls from 1 at fc9 to 1e-09 at fc0, 1e+09-fold over 9 layers

    Source: Glorot and Bengio, AISTATS 2010, equations 5 to 7.
    """

    min_factor: float = 100.0

    def __post_init__(self) -> None:
        check_number("DepthProfile: min_factor", self.min_factor, above=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        vanishing = told(alerts, "vanishing")
        if account(probe) is not None or not (vanishing or told(alerts, "exploding")):
            return None
        index, norms = profile(history)
        if len(index) < 3:
            return None
        first, last = norms[0], norms[-1]
        factor = max(first / last, last / first)
        if factor < self.min_factor or (last > first) != bool(vanishing):
            return None
        share, gap = largest_gap(norms)
        straightness = _r_squared(np.arange(len(norms), dtype=np.float64), np.log(norms))
        names = [history.layers[i] for i in index]
        passed = (first / last) ** (1 / (len(index) - 1))
        direction = "rises" if first > last else "falls"
        evidence = [
            f"the median gradient norm {direction} from {last:.2g} at {called(names[-1])} to {first:.2g} at "
            f"{called(names[0])}, {factor:.2g}-fold over {len(index) - 1} layers",
            f"each layer passes {passed:.2g} of the gradient on to the one before it "
            f"(a geometric profile explains {straightness:.0%} of the change)",
        ]
        if vanishing:
            evidence.append(f"{len(layers_of(vanishing))} of {len(history.layers)} layers fell below their limit")
        if share > 0.5:
            return self._one_place(names, norms, gap, share, evidence[0])
        return Diagnosis(
            "shrinks_with_depth" if vanishing else "grows_with_depth",
            confidence=round(AT_MOST * float(straightness), 2),
            layers=tuple(names),
            evidence=(*evidence, PROBE_WOULD_TELL),
            remedy=f"bring what each layer passes from {passed:.2g} to about 1 with a normalisation before each "
            "activation (BatchNorm or LayerNorm)",
            change="norm",
        )

    @staticmethod
    def _one_place(names: list[str], norms: FloatArray, gap: int, share: float, evidence: str) -> Diagnosis:
        before, after = called(names[gap]), called(names[gap + 1])
        lost = norms[gap + 1] / norms[gap]
        return Diagnosis(
            "one_place",
            confidence=round(AT_MOST * share, 2),
            layers=(names[gap], names[gap + 1]),
            evidence=(
                evidence,
                f"{share:.0%} of that (on a log scale) happens between {after} and {before}: "
                f"{norms[gap + 1]:.2g} to {norms[gap]:.2g}, {max(lost, 1 / lost):.2g}-fold in one place",
                PROBE_WOULD_TELL,
            ),
            remedy=f"look at what lies between {before} and {after}: a long recurrence, a saturated or dead "
            "activation, a detached or strongly scaled branch; a skip connection around it gives the gradient a way",
            change="residual",
        )


def profile(history: History) -> tuple[list[int], FloatArray]:
    """The layers with a gradient and their median norms over the last steps, input first."""
    recent = np.where(history.has_grad & np.isfinite(history.grad_norm), history.grad_norm, np.nan)[-WINDOW:]
    known = (recent > 0).any(axis=0)
    index = np.flatnonzero(known)
    norms = np.array([float(np.nanmedian(column[column > 0])) for column in recent[:, index].T])
    return index.tolist(), norms


def largest_gap(norms: FloatArray) -> tuple[float, int]:
    """The pair of neighbours that changes most, as its share of all change on the log scale, and its index."""
    steps = np.abs(np.diff(np.log(norms)))
    gap = int(np.argmax(steps))
    return float(steps[gap] / max(float(steps.sum()), 1e-12)), gap


def _r_squared(x: FloatArray, y: FloatArray) -> float:
    spread = float(np.var(y))
    return float(np.corrcoef(x, y)[0, 1] ** 2) if spread > 0 else 0.0
