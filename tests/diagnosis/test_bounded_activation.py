from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import BoundedActivation
from gradwatch.probing import probe
from gradwatch.profile import BackwardProfile, Segment
from tests.diagnosis.profiles import PROFILES, alert, chain, linear


def explain(profile: BackwardProfile | None, rule: str = "vanishing") -> Diagnosis | None:
    return BoundedActivation().explain(History(), profile, [alert(rule)])


def test_deep_sigmoids() -> None:
    found = explain(chain(10, "Sigmoid", 0.05, 0.9))
    assert found is not None
    shrinks = math.sqrt(0.05**10 * 0.9**9)
    assert (found.cause, found.change) == ("bounded_activation", "activation")
    assert found.layers == tuple(f"fc{i}.act" for i in range(10))
    assert found.evidence[0] == (
        "sigmoid passes 0.05 of the squared gradient per layer in fc0.act ... fc9.act, at best 0.062; the weights pass "
        f"0.91; over 10 layers the gradient shrinks {1 / shrinks:.2g}-fold"
    )
    assert found.confidence == pytest.approx(10 * math.log(16) / -(2 * math.log(shrinks)), abs=0.005)


def test_a_softmax_between_layers() -> None:
    """Of 64 units that are nearly alike p is 1 / 64, and it passes p (v - the mean of v)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Softmax(1), nn.Linear(64, 64), nn.Softmax(1), nn.Linear(64, 10))
    nn.init.zeros_(model[0].weight)
    with probe(model) as profile:
        nn.functional.cross_entropy(model(torch.randn(32, 64)), torch.arange(32) % 10).backward()
    found = explain(profile)
    assert found is not None
    assert found.layers == ("1", "3")
    passes = float(found.evidence[0].split()[2])
    assert passes == pytest.approx((1 - 1 / 64) / 64**2, rel=0.3)
    assert found.remedy.startswith("replace Softmax by ReLU")


def test_a_softmax_at_the_output_is_not_to_be_replaced() -> None:
    """Deepfd's programs: sigmoids between the layers, and a squared error of probabilities."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10), nn.Softmax(1)]
    model = nn.Sequential(*layers)
    with probe(model) as profile:
        nn.functional.mse_loss(model(torch.randn(32, 64)), torch.eye(10)[torch.arange(32) % 10]).backward()
    found = explain(profile)
    assert found is not None
    assert found.layers == ("1", "3")
    assert found.remedy.startswith("replace Sigmoid by ReLU with He initialisation")
    assert " in layers 1 and 3, at best 0.062; " in found.evidence[0]


def test_of_several_the_one_that_takes_most_is_named() -> None:
    segments = chain(5, "Sigmoid", 0.05, 1.0).segments
    softmax = Segment("gate", "attention", "Softmax", 0.01, 1.0)
    found = explain(BackwardProfile((*segments, softmax)))
    assert found is not None
    assert found.remedy.startswith("replace Sigmoid by ReLU")
    assert "gate" not in found.layers


def test_in_words_of_one_layer_that_takes_more_than_is_lost() -> None:
    found = explain(BackwardProfile((linear("out", 20.0), Segment("softmax", "attention", "Softmax", 1e-6, 1.0))))
    assert found is not None
    assert "over 1 layer the gradient" in found.evidence[0]
    assert found.evidence[1] == "its bound makes up all of that and more, of which other parts give some back"


def test_a_shallow_network_of_sigmoids_may_well_train() -> None:
    two = explain(chain(2, "Sigmoid", 1 / 16, 2.0))
    assert two is not None
    assert two.confidence < 0.9


@pytest.mark.parametrize("name", ["small", "healthy", "saturated", "NaN", "nothing", "large"])
def test_it_is_of_sigmoids_alone(name: str) -> None:
    assert explain(PROFILES[name]) is None
    assert explain(None) is None


def test_saturated_sigmoids_are_another_fault() -> None:
    assert explain(chain(4, "Sigmoid", 1e-6, 1.0)) is None  # the bound makes up 20% of that


def test_it_explains_no_other_symptom() -> None:
    assert explain(PROFILES["sigmoids"], rule="exploding") is None


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_the_share_is_one(share: float) -> None:
    with pytest.raises(ValueError, match="BoundedActivation: min_share must be above 0 and at most 1"):
        BoundedActivation(min_share=share)
