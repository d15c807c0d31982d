"""Weight decay: it takes more of the weights than the gradient gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.start import shrunk_weights
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import mean_gain, span
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class WeightDecay:
    """Weights that were large enough at first have shrunk since: nothing is learned, or the gradient vanishes.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> from gradwatch.profile import Weight
        >>> history, stats = History(), History.from_grad_norms(fc0=[1.0], fc1=[1.0]).latest
        >>> for step in (0, 100):
        ...     history.append(replace(stats, step=step, param_norm=np.array([4.0, 4.0])))
        >>> probe = BackwardProfile((), step=100, weights=tuple(Weight(f"fc{i}.weight", 0.04, 8, 8, 8) for i in (0, 1)))
        >>> found = WeightDecay().explain(history, probe, [Alert(99, "vanishing", "fc0", 1, 1e-8, 1e-3, "")])
        >>> print(found.evidence[0])
        the weights of fc0 and fc1 have 0.01 of the size that they began with: 4.50% less at every step

    Source: Krogh and Hertz, NeurIPS 1991: weight decay multiplies weights by 1 - lr * decay at every step.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        if history.first is None:
            return None
        if shrinking := [alert for alert in told(alerts, "shrinking") if alert.value < 1]:
            found = shrinking[-1]
            return _diagnosis(layers_of(shrinking), found.value, found.step - history.first.step)
        kept = shrunk_weights(history, probe)
        steps = 0 if probe is None else probe.step - history.first.step
        if not told(alerts, "vanishing", "dead") or not kept or steps < 1:
            return None
        share = mean_gain([math.log(max(s, TINY)) for s in kept.values()])
        # Where it is less the weights were small from the start, and the biases large.
        return _diagnosis(tuple(kept), share, steps) if share >= SLOWEST**steps else None


def _diagnosis(layers: tuple[str, ...], share: float, steps: int) -> Diagnosis:
    evidence = f"the weights of {span(layers)} have {share:.2g} of the size that they began with"
    each = f": {1 - share ** (1 / steps):.2%} less at every step" if 0 < share < 1 <= steps else ""
    return Diagnosis(
        "weight_decay",
        confidence=0.95,
        layers=layers,
        evidence=(evidence + each,),
        remedy="divide the optimizer's weight_decay by 100, or leave it out; likewise a penalty in the loss",
        change="weight_decay",
    )


SLOWEST = 0.8
"""What a step leaves of the weights at least: decay by a fifth at each is more than any takes on purpose."""

TINY = 1e-300
"""In place of nothing, of which there is no logarithm."""
