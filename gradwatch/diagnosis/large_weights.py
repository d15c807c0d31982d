"""Large weights: signal and gradient grow in every layer from the start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.reference import weight_reference
from gradwatch.diagnosis.rescaling import CLEAR, wrong_signal, wrong_size
from gradwatch.diagnosis.start import excess_of_weights, inputs
from gradwatch.diagnosis.symptoms import UNSTABLE, told
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import SEVERE, BackwardProfile
from gradwatch.progress import LITTLE
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class LargeWeights:
    """The gradient explodes since the weights, as they were initialised, pass more than makes up for the activations.

    Weights that a step has blown up are no cause: those of the first step count. Nor are those before a normalisation,
    which takes their size out again.

    Args:
        min_log_gain: least log squared gain that all layers together are too large by.
        min_growth: without a probed step, how many times the signal must grow from the first to the last layer.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from gradwatch.profile import Segment, Weight
        >>> act = Segment("act", "activation", "Relu", 0.5, 1.0)
        >>> weights = tuple(Weight(f"fc{i}.weight", 64**0.5 * 3, 64, 64, 64) for i in range(6))
        >>> alerts = [Alert(1, "exploding", "fc0", 2, 1e4, 1e3, "")]
        >>> found = LargeWeights().explain(History(), BackwardProfile((act,), weights=weights), alerts)
        >>> print(found.remedy.partition(":")[0])
        multiply the initial weights of fc0 ... fc5 by 0.471

    Source: He et al., ICCV 2015, equation 14; Schoenholz et al., ICLR 2017, chi_1 above 1.
    """

    min_log_gain: float = SEVERE
    min_growth: float = 10.0
    # Inputs of healthy networks' last layers are a third to three times as large as the first one's.

    def __post_init__(self) -> None:
        check_number("LargeWeights: min_log_gain", self.min_log_gain, above=0)
        check_number("LargeWeights: min_growth", self.min_growth, above=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        if not told(alerts, *UNSTABLE):
            return None
        if probe is None or not probe.weights:
            return wrong_signal("large_weights", history, self.min_growth, grows=True)
        off = {layer: e for layer, e in excess_of_weights(history, probe).items() if e > CLEAR}
        little = history.progress.is_none(but=LITTLE)  # since then: it was enough to hold training up
        if math.fsum(off.values()) < (self.min_log_gain / 2 if little else self.min_log_gain):
            return None
        given = inputs(history, probe)
        confidence = 0.5 if given is not None and given.are_unscaled else 0.9
        return wrong_size("large_weights", confidence, off, weight_reference(probe))
