"""Norm weights: the scale that normalisation layers multiply by is small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.start import initial_norm_weights
from gradwatch.diagnosis.symptoms import told
from gradwatch.diagnosis.words import changes, ends, makes_up, span
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import BackwardProfile
from gradwatch.records import Alert, Diagnosis


@dataclass(frozen=True)
class NormWeights:
    """The gradient vanishes in normalisation layers whose own weights, factors of every signal, began far below 1.

    Args:
        min_share: least share of the total log gain that is worth a diagnosis.
        small: root mean square of the weights, below which they are too small.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> from gradwatch.profile import Segment
        >>> history = History()
        >>> first = History.from_grad_norms(ln=[1.0], out=[1.0]).latest
        >>> sizes = {"param_norm": np.array([0.8, 8.0]), "numel": np.array([128.0, 64.0])}
        >>> history.append(replace(first, **sizes))
        >>> profile = BackwardProfile((Segment("ln", "norm", "NativeLayerNorm", 1e-4, 1.0),))
        >>> found = NormWeights().explain(history, profile, [Alert(7, "vanishing", "ln", 2, 1e-9, 1e-4, "")])
        >>> found.evidence[0]
        'the weights of the normalisation ln began at 0.1, where 1 keeps the size of what is normalised'

    Source: Ba, Kiros and Hinton, 2016, equation 4: the gain that follows the normalisation.
    """

    min_share: float = 0.3
    # As for the other causes of a vanishing gradient.
    small: float = 0.5
    # Below it, a normalisation halves every signal on its way, and every gradient on its way back.

    def __post_init__(self) -> None:
        check_number("NormWeights: min_share", self.min_share, above=0, at_most=1)
        check_number("NormWeights: small", self.small, above=0, at_most=1)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        whole = account(probe)
        if not told(alerts, "vanishing") or probe is None or whole is None or not whole.shrinks:
            return None
        sizes = {layer: size for layer, size in initial_norm_weights(history, probe).items() if size < self.small}
        if not sizes or whole.share("norm") < self.min_share:
            return None
        least = min(sizes.values())
        layers = list(sizes)
        return Diagnosis(
            "norm_weights",
            confidence=round(0.9 * whole.confidence("norm"), 2),
            layers=tuple(layers),
            evidence=(
                f"the weights of the normalisation{'s' * (len(layers) > 1)} {ends(layers)} began at {least:.2g}, where "
                "1 keeps the size of what is normalised",
                f"the gradient {changes(whole.log_gain)} on its way; what is lost in normalisations "
                f"{makes_up(whole.share('norm'))}",
            ),
            remedy=f"start the weights of {span(layers)} at 1, {1 / least:.3g} times what they are",
            change="init_scale",
        )
