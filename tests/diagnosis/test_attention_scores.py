from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import AttentionScores, BoundedActivation
from gradwatch.probing import probe
from gradwatch.profile import BackwardProfile, Segment
from tests.diagnosis.profiles import INF, NAN, PROFILES, alert, linear

PRODUCT = Segment("net", "multiply", "Bmm", 1.0, 1.0)
SOFTMAX = Segment("net", "attention", "Softmax", 1e-6, 1.0)
OUT = linear("out", 1.0)


def explain(profile: BackwardProfile | None, rule: str = "vanishing") -> Diagnosis | None:
    return AttentionScores().explain(History(), profile, [alert(rule)])


def test_an_attention_that_is_sure_of_where_it_looks() -> None:
    found = explain(BackwardProfile((OUT, PRODUCT, SOFTMAX, PRODUCT)))
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == ("attention_scores", "norm", 0.5, ("net",))
    assert found.evidence == (
        "the softmax that an attention weighs by in net passes 1e-06 of the squared gradient: one score is far above "
        "the others",
        "from the output to the input the gradient shrinks 1e+03-fold; the softmax makes up 100% of that, on a log "
        "scale",
    )
    assert found.remedy.startswith("divide the scores by the root of the queries' size, or normalise queries and keys")


def test_an_attention_written_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys, self.values, self.out = nn.Embedding(10, 16), nn.Embedding(10, 16), nn.Linear(16, 10)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            scores = torch.einsum("bd,btd->bt", self.keys(tokens[:, 0]), self.keys(tokens))
            return self.out(torch.einsum("bt,btd->bd", (10 * scores).softmax(1), self.values(tokens)))

    torch.manual_seed(0)
    model = Net()
    with probe(model) as profile:
        nn.functional.cross_entropy(model(torch.randint(0, 10, (32, 6))), torch.arange(32) % 10).backward()
    found = explain(profile)
    assert found is not None
    assert found.layers == ("Net",)
    assert BoundedActivation().explain(History(), profile, [alert("vanishing")]) is None


@pytest.mark.parametrize("gain", [0.0, NAN, INF, 1.0, 0.5])
def test_a_softmax_that_passes_enough_or_nothing_that_is_known(gain: float) -> None:
    found = explain(BackwardProfile((OUT, PRODUCT, replace(SOFTMAX, gain=gain), PRODUCT)))
    assert (found is None) == (gain != 0.0)


def test_names_that_are_missing_or_long() -> None:
    for name, words in (("", "weighs by passes"), ("x" * 300, f"weighs by in {'x' * 300} passes")):
        found = explain(BackwardProfile((OUT, PRODUCT, replace(SOFTMAX, layer=name))))
        assert found is not None
        assert words in found.evidence[0]


@pytest.mark.parametrize("name", ["sigmoids", "small", "healthy", "NaN", "nothing"])
def test_it_is_of_attention_alone(name: str) -> None:
    assert explain(PROFILES[name]) is None
    assert explain(None) is None


def test_it_explains_no_other_symptom() -> None:
    assert explain(BackwardProfile((OUT, PRODUCT, SOFTMAX, PRODUCT)), rule="exploding") is None


def test_the_share_is_one() -> None:
    with pytest.raises(ValueError, match="AttentionScores: min_share must be above 0 and at most 1"):
        AttentionScores(min_share=math.inf)
