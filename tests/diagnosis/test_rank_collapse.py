from __future__ import annotations

import math

import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import RankCollapse
from gradwatch.profile import BackwardProfile, Segment
from tests.diagnosis.profiles import BLOCK, PROFILES, alert

ATTENTION, LINEAR = Segment("attention", "attention", "Bmm", 1.0, 1.0), Segment("mlp", "weight", "Addmm", 1.0, 1.0)


def explain(profile: BackwardProfile | None, rule: str = "vanishing") -> Diagnosis | None:
    return RankCollapse().explain(History(), profile, [alert(rule, "attention.query")])


def test_attention_without_a_way_around_it() -> None:
    found = explain(BackwardProfile((LINEAR, ATTENTION) * 3))
    assert found is not None
    assert (found.cause, found.change, found.confidence) == ("rank_collapse", "residual", 0.8)
    assert found.layers == ("attention.query",)
    assert found.evidence[0].startswith("3 attentions one after the other")
    assert f"x + f(x) / {math.sqrt(6):.3g}" in found.remedy


@pytest.mark.parametrize(
    "segments",
    [
        (LINEAR, ATTENTION),  # one is no depth
        (LINEAR, ATTENTION, BLOCK, ATTENTION),
        (LINEAR,) * 4,
        (),
    ],
)
def test_what_is_something_else(segments: tuple[Segment, ...]) -> None:
    assert explain(BackwardProfile(segments)) is None


def test_a_gradient_that_vanishes_as_a_whole_has_other_causes() -> None:
    small = Segment("mlp", "weight", "Addmm", 1e-4, 1.0)
    assert explain(BackwardProfile((small, ATTENTION) * 3)) is None
    assert explain(PROFILES["small"]) is None


def test_only_of_what_vanishes_and_was_probed() -> None:
    assert explain(BackwardProfile((LINEAR, ATTENTION) * 3), rule="exploding") is None
    assert explain(None) is None


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="RankCollapse: min_attentions must be a whole number from 1, got 0"):
        RankCollapse(min_attentions=0)
