from __future__ import annotations

import numpy as np
import pytest

from gradwatch import Diagnosis
from gradwatch.diagnosis import NormWeights
from gradwatch.profile import BackwardProfile, Segment, Weight
from tests.diagnosis.profiles import NOTHING, alert, begun

WEIGHTS = tuple(Weight(f"ln{i}.weight", 1.0, 0, 0, 0) for i in range(2))


def explain(size: float, gain: float, elements: float = 128.0) -> Diagnosis | None:
    """Two normalisations of 64 features whose weights are all ``size``, biases zero."""
    norms = tuple(Segment(f"ln{i}", "norm", "NativeLayerNorm", gain, 1.0) for i in (1, 0))
    profile = BackwardProfile(norms, weights=WEIGHTS)
    sizes = {"param_norm": np.full(2, 8 * size), "numel": np.full(2, elements)}
    return NormWeights().explain(begun(profile, **sizes), profile, [alert("vanishing")])


def test_small_ones() -> None:
    found = explain(0.1, 0.01)
    assert found is not None
    assert (found.cause, found.change, found.layers, found.confidence) == (
        "norm_weights",
        "init_scale",
        ("ln0", "ln1"),
        0.9,
    )
    assert found.evidence[0].startswith("the weights of the normalisations ln0 and ln1 began at 0.1, where 1 keeps")
    assert found.evidence[1].startswith(
        "the gradient shrinks 1e+02-fold on its way; what is lost in normalisations makes up 100%"
    )
    assert found.remedy == "start the weights of ln0 and ln1 at 1, 10 times what they are"


@pytest.mark.parametrize(("size", "gain"), [(1.0, 0.01), (0.1, 1.5), (0.0, 0.01)])
def test_what_is_not_their_fault(size: float, gain: float) -> None:
    assert explain(size, gain) is None
    assert NormWeights().explain(begun(NOTHING), None, [alert("vanishing")]) is None


@pytest.mark.parametrize(("argument", "value"), [("min_share", 0.0), ("small", 0.0), ("small", 1.5)])
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"NormWeights: {argument} must be above 0 and at most 1"):
        NormWeights(**{argument: value})
