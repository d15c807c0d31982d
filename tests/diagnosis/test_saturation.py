from __future__ import annotations

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import Saturation
from gradwatch.profile import BackwardProfile
from tests.diagnosis.profiles import NAN, PROFILES, alert, begun, chain


def explain(
    profile: BackwardProfile | None, rule: str = "saturated", history: History | None = None
) -> Diagnosis | None:
    return Saturation().explain(history or History(), profile, [alert(rule, value=0.9)])


def test_large_weights_drive_tanh_to_its_ends() -> None:
    found = explain(chain(4, "Tanh", 0.01, 400.0))
    assert found is not None
    assert (found.confidence, found.change, found.layers) == (0.9, "init_scale", ("fc0",))
    assert found.evidence[0] == "90% of the outputs behind fc0 have next to no derivative"
    assert found.evidence[1].startswith("tanh passes 0.01 of the squared gradient per layer in fc0.act ... fc3.act")
    assert found.remedy == (
        "multiply the initial weights of fc0 ... fc3 by 0.05: the squared gain is then 1 per layer"
    )  # sqrt(1 / 400)


def test_with_weights_as_they_should_be_what_they_are_given_is_normalised() -> None:
    found = explain(chain(4, "Tanh", 0.01, 1.0))
    assert found is not None
    assert (found.change, found.remedy) == (
        "norm",
        "normalise the inputs of these activations, with LayerNorm or BatchNorm before each",
    )


def test_a_gradient_that_vanishes_there() -> None:
    found = explain(chain(8, "Sigmoid", 1e-5, 1.0), rule="vanishing")
    assert found is not None
    assert found.layers == tuple(f"fc{i}.act" for i in range(8))
    assert found.confidence == pytest.approx(1 - np.log(16) / -np.log(1e-5), abs=0.01)


def test_large_inputs_are_the_better_explanation() -> None:
    profile = chain(4, "Tanh", 0.01, 1.0)
    found = explain(profile, history=begun(profile, data_rms=np.array([1e4, *[NAN] * 4])))
    assert found is not None
    assert found.confidence == 0.45


def test_without_a_probed_step() -> None:
    found = explain(None)
    assert found is not None
    assert (found.confidence, found.change) == (0.5, "norm")
    assert "a probed step would settle it" in found.evidence[-1]


@pytest.mark.parametrize("name", ["small", "healthy", "sigmoids", "nothing", "NaN"])
def test_a_gradient_that_vanishes_elsewhere(name: str) -> None:
    assert explain(PROFILES[name], rule="vanishing") is None


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_the_share_is_one(share: float) -> None:
    with pytest.raises(ValueError, match="Saturation: min_share must be above 0 and at most 1"):
        Saturation(min_share=share)
