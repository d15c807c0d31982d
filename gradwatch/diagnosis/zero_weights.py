"""Zero weights: a layer whose weights are all zero passes no gradient on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.start import began_at_zero
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import drawn_at_random, span
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class ZeroWeights:
    """Nothing gets past weights of zero, and where two layers have them neither ever leaves it.

    Example:
        >>> from gradwatch.profile import Weight
        >>> probe = BackwardProfile((), weights=tuple(Weight(f"fc{i}.weight", 0.0, 8, 8, 8) for i in range(3)))
        >>> alerts = [Alert(8, "dead", f"fc{i}", 2, 0.0, 0.0, "") for i in range(2)]
        >>> print(ZeroWeights().explain(History(), probe, alerts).remedy)
        draw the initial weights of fc0 ... fc2 at random, as torch.nn.init.kaiming_normal_ does

    Source: Goodfellow, Bengio and Courville, Deep Learning, 2016, section 8.4: initial weights must break symmetry.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        found = told(alerts, "dead", "vanishing")
        zero = zero_layers(history, probe, found)
        if not found or not zero:
            return None
        return Diagnosis(
            "zero_weights",
            confidence=0.95,
            layers=tuple(zero),
            evidence=(f"every weight of {span(zero)} is zero, so that no gradient gets past it",),
            remedy=drawn_at_random(zero),
            change="init_scale",
        )


def zero_layers(history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> list[str]:
    """The layers whose weights are all zero: of those multiplied with, or of several that are dead from the start.

    >>> from dataclasses import replace
    >>> import numpy as np
    >>> history = History()
    >>> stats = History.from_grad_norms(users=[0.0], items=[0.0]).latest
    >>> history.append(replace(stats, param_norm=np.zeros(2)))
    >>> zero_layers(history, None, [Alert(8, "dead", None, 2, 0.0, 0.0, "", layers=("users", "items"))])
    ['users', 'items']
    """
    known = [] if probe is None else [w.name.rpartition(".")[0] or w.name for w in probe.weights if w.norm == 0]
    dead = [name for name in layers_of(told(alerts, "dead")) if name in began_at_zero(history)]
    return list(dict.fromkeys(known or dead * (len(dead) > 1)))
