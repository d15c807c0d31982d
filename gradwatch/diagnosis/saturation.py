"""Saturation: sigmoids or tanhs so far out that they pass next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.reference import weight_reference
from gradwatch.diagnosis.rescaling import CLEAR, rescale
from gradwatch.diagnosis.start import excess_of_weights, inputs
from gradwatch.diagnosis.symptoms import layers_of, told
from gradwatch.diagnosis.words import PROBE_WOULD_TELL, changes, mean_gain, place, span
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import called, counted

NORMALISE = "normalise the inputs of these activations, with LayerNorm or BatchNorm before each"


@dataclass(frozen=True)
class Saturation:
    """Activations that are flat at both ends are driven there, by weights that are too large or by large inputs.

    Args:
        min_share: where a vanishing gradient is to be explained, least share of the total log gain.

    Raises:
        ValueError: when ``min_share`` is out of range.

    Example:
        >>> from gradwatch.profile import Segment, Weight
        >>> act = Segment("act", "activation", "Tanh", 0.01, 1.0)
        >>> weights = tuple(Weight(f"fc{i}.weight", 160.0, 64, 64, 64) for i in range(4))
        >>> alerts = [Alert(4, "saturated", "fc0", 2, 0.9, 0.5, "")]
        >>> print(Saturation().explain(History(), BackwardProfile((act,) * 4, weights=weights), alerts).remedy)
        multiply the initial weights of fc0 ... fc3 by 0.05: the squared gain is then 1 per layer

    Source: Glorot and Bengio, AISTATS 2010, section 3.
    """

    min_share: float = 0.3
    # As for the other causes of a vanishing gradient.

    def __post_init__(self) -> None:
        check_number("Saturation: min_share", self.min_share, above=0, at_most=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        saturated, whole = told(alerts, "saturated"), account(probe)
        share = whole.share("saturation") if whole is not None and whole.shrinks else 0.0
        if not saturated and not (told(alerts, "vanishing") and share >= self.min_share):
            return None
        evidence, confidence = [], 0.3
        if saturated:
            worst = max(saturated, key=lambda a: a.value)
            evidence.append(
                f"{worst.value:.0%} of the outputs behind {called(worst.layer or 'a layer')} have next to no derivative"
            )
            confidence = 0.9
        flat = [e.segment for e in whole.of("saturation")[::-1]] if whole is not None else []
        if whole is not None and flat:
            passes, names = mean_gain([s.log_gain for s in flat]), [s.layer for s in flat]
            evidence.append(
                f"{flat[0].operation.lower()} passes {passes:.2g} of the squared gradient per layer{place(names)}; "
                f"over {counted(len(flat), 'layer')} the gradient {changes(whole.log_gain)}"
            )
            confidence = 0.9 if saturated else whole.confidence("saturation")
        if probe is None:
            evidence.append(PROBE_WOULD_TELL)
            confidence = 0.5
        given = inputs(history, probe)
        if given is not None and given.are_unscaled:
            confidence /= 2
        off = {layer: e for layer, e in excess_of_weights(history, probe).items() if e > CLEAR}
        layers = layers_of(saturated) or tuple(dict.fromkeys(s.layer for s in flat if s.layer))
        if not off or probe is None:
            return Diagnosis("saturation", confidence, layers, tuple(evidence), NORMALISE, "norm")
        reference = weight_reference(probe)
        gain = reference * mean_gain(list(off.values()))
        evidence.append(
            f"the initial weights of {span(list(off))} have a squared gain of {gain:.3g} per layer; {reference:.2g} "
            "is what they need"
        )
        return Diagnosis("saturation", confidence, layers, tuple(evidence), rescale(off, reference), "init_scale")
