"""No activation: a network of layers without one between them is a single linear map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import span
from gradwatch.history import History
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class NoActivation:
    """W2 (W1 x + b1) + b2 is (W2 W1) x + (W2 b1 + b2): without an activation depth adds nothing.

    Example:
        >>> alerts = [Alert(1, "no_activation", None, 1, 0.0, 0.0, "", layers=("fc0", "fc1"))]
        >>> print(NoActivation().explain(History(), None, alerts).remedy)
        put an activation, such as torch.nn.ReLU, behind fc0 and fc1

    Source: Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.1.
    """

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        layers = layers_of(told(alerts, "no_activation"))
        if not layers:
            return None
        evidence = (
            "from the first weights to the last every operation is linear, or a batch normalisation, and no layer "
            "between is narrower than both ends: a single one can compute what the network does"
        )
        remedy = f"put an activation, such as torch.nn.ReLU, behind {span(layers)}"
        return Diagnosis("no_activation", 0.9, layers, (evidence,), remedy, "activation")
