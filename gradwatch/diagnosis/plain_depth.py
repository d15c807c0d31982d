"""Plain depth: too many layers one after the other, with no skip connection around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.through_time import through_time
from gradwatch.diagnosis.words import changes, with_skips
from gradwatch.history import History
from gradwatch.patterns import check_number, check_whole_number
from gradwatch.profile import DEEP, SEVERE, BackwardProfile, Segment
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class PlainDepth:
    """The gradient passes every one of many layers, as there is no way around any of them.

    At some depth no scale of the weights is right any more: how much a plain network of random weights passes on varies
    as exp(sum of 1 / width), so that of networks with the right scale in the mean, most have a wrong one. Below that
    depth skip connections still are a way out, beside a better scale.

    Args:
        min_depth: layers from which on it is worth saying.
        max_ratio: sum of 1 / width over the layers from which on no scale will do.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from gradwatch.profile import Segment, Weight
        >>> weight = Weight("fc.weight", 8.0, 32, 32, 32)
        >>> act = Segment("act", "activation", "Relu", 0.5, 1.0)
        >>> layer = act, Segment("fc", "weight", "Addmm", 1.0, 0.2, weight=weight)
        >>> alerts = [Alert(7, "vanishing", "fc", 2, 1e-9, 1e-4, "")]
        >>> found = PlainDepth().explain(History(), BackwardProfile(layer * 24), alerts)
        >>> found.confidence, found.evidence[0]
        (0.95, 'the gradient passes 24 layers one after the other, and no skip connection leads around any of them')

    Source: Hanin, NeurIPS 2018: the sum of the reciprocal widths; He et al., CVPR 2016; Hayou et al., AISTATS 2021:
    branches divided by the root of the depth.
    """

    min_depth: int = 10
    # Perceptrons of 8 layers train by the right scale alone, in docs/detection.md.
    max_ratio: float = 0.5
    # Of ReLU layers the log squared gain then has a variance of 5 * 0.5, a standard deviation of 5-fold in the gain.

    def __post_init__(self) -> None:
        check_whole_number("PlainDepth: min_depth", self.min_depth, at_least=2)
        check_number("PlainDepth: max_ratio", self.max_ratio, above=0)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        whole = account(probe)
        vanishing = told(alerts, "vanishing")
        sign = 1 if told(alerts, "exploding") else -1 if vanishing else 0
        if probe is None or whole is None or sign * whole.log_gain <= SEVERE / 2:
            return None
        if whole.is_cut and told(alerts, "dead"):
            return None
        recurrent = {t.layer for t in through_time(probe)}
        deep = [s for s in _layers(probe) if s.layer not in recurrent]
        weights = [s.weight for s in deep if s.weight is not None]
        names, depth = [s.layer for s in deep], len(deep)
        if whole.is_cut:  # beyond it no segment was seen
            weights = list(probe.weights)
            names, depth = [w.name.rpartition(".")[0] for w in weights], len(weights)
        # Behind all of them is one that the gradient does not pass.
        arrives = layers_of(vanishing)[:1] if sign < 0 else ()
        if depth < self.min_depth or any(s.kind == "residual" for s in deep):
            return None
        ratio = math.fsum(1 / w.fan_in for w in weights if w.fan_in)
        evidence = [
            f"the gradient passes {depth} layers one after the other, and no skip connection leads around any of them",
            f"it {changes(whole.log_gain)} on its way",
        ]
        if ratio > self.max_ratio:
            evidence.append(
                f"the reciprocals of their widths add up to {ratio:.2g}: beyond {self.max_ratio:g}, what random "
                "weights pass varies so much that no scale of them is right"
            )
        return Diagnosis(
            "plain_depth",
            confidence=0.95 if ratio > self.max_ratio else 0.4,
            layers=tuple(dict.fromkeys(filter(None, [*arrives, *names]))),
            evidence=tuple(evidence),
            remedy=with_skips(names, depth),
            change="residual",
        )


def _layers(probe: BackwardProfile) -> list[Segment]:
    """Input first. A product with a matrix that is no parameter, as of a graph's neighbours, is no layer of its own."""
    deep = [s for s in reversed(probe.segments) if s.kind in DEEP]
    own = [s for s in deep if s.kind != "weight" or s.weight is not None]
    return own if any(s.weight is not None for s in own) else deep
