"""Symmetry: the units of a layer began alike, and training cannot tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import drawn_at_random, span
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class Symmetry:
    """Weights of one number make every unit of a layer the same, and its gradient, too: the layer is one unit wide.

    Example:
        >>> alerts = [Alert(4, "symmetric", None, 1, 0.0, 0.0, "", layers=("fc0", "fc1"))]
        >>> print(Symmetry().explain(History(), None, alerts).remedy)
        draw the initial weights of fc0 and fc1 at random, as torch.nn.init.kaiming_normal_ does

    Source: Goodfellow, Bengio and Courville, Deep Learning, 2016, section 8.4: initial weights must break symmetry.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        layers = layers_of(told(alerts, "symmetric"))
        if not layers:
            return None
        return Diagnosis(
            "symmetry",
            confidence=0.95,
            layers=layers,
            evidence=(
                f"the units of {span(layers)} have the same weights, and hardly a gradient that tells them apart: "
                f"{'each layer does' if len(layers) > 1 else 'the layer does'} no more than a single unit",
            ),
            remedy=drawn_at_random(layers),
            change="init_scale",
        )
