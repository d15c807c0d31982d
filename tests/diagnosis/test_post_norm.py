from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from gradwatch import Diagnosis, History, Monitor
from gradwatch.diagnosis import PostNorm
from gradwatch.profile import BackwardProfile, Segment
from tests.diagnosis.profiles import INF, NAN, alert

NORM = Segment("norm", "norm", "NativeLayerNorm", 0.25, 1.0)
SUM = Segment("block", "residual", "Add", 1.2, 0.5, skip=1.0)
SMALL = Segment("fc", "weight", "Addmm", 1e-9, 0.5)


def explain(*segments: Segment, rule: str = "vanishing") -> Diagnosis | None:
    return PostNorm().explain(History(), BackwardProfile(segments), [alert(rule, "embedding")])


def test_normalisations_behind_the_sums() -> None:
    found = explain(*(NORM, SUM) * 6)
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == ("post_norm", "norm", 0.8, ("embedding",))
    assert found.evidence == (
        "each of 6 normalisations behind a residual sum, and the block before it, passes 0.3 of the squared gradient "
        "in norm",
        "in all of them together the gradient shrinks 37-fold",
    )
    assert found.remedy.startswith("normalise the input of each branch in place of the sum (pre-norm")


@pytest.mark.parametrize(
    "segments",
    [
        (NORM, *(SUM,) * 9),  # pre-norm has one before the head
        (NORM, SUM) * 3,  # so little is no fault
        (*(NORM, SUM) * 6, *(SMALL,) * 6),  # and this is the smaller part of it
        (NORM, SMALL) * 6,
        (replace(NORM, gain=0.0), SUM) * 6,
        (replace(NORM, gain=NAN), SUM) * 6,
        (replace(NORM, gain=INF), SUM) * 6,
        (),
    ],
)
def test_what_is_something_else(segments: tuple[Segment, ...]) -> None:
    assert explain(*segments) is None


def test_only_of_what_vanishes_and_was_probed() -> None:
    assert explain(*(NORM, SUM) * 6, rule="exploding") is None
    assert PostNorm().explain(History(), None, [alert("vanishing")]) is None


def test_names_that_are_missing_or_long() -> None:
    unnamed, long = replace(NORM, layer=""), replace(NORM, layer="x" * 300)
    for norm, ending in ((unnamed, "squared gradient"), (long, f"in {'x' * 300}")):
        found = explain(*(norm, SUM) * 6)
        assert found is not None
        assert found.evidence[0].endswith(ending)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_transformer(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=norm_first)
    model = nn.Sequential(nn.Linear(4, 16), nn.TransformerEncoder(layer, 8, enable_nested_tensor=False))
    monitor = Monitor(model)
    monitor.probe()
    model(torch.randn(4, 6, 4)).square().mean().backward()
    monitor.observe()
    profile = monitor.report().profile
    assert profile is not None
    pairs = zip(profile.segments, profile.segments[1:])
    sums = [norm for norm, block in pairs if (norm.kind, block.kind) == ("norm", "residual")]
    assert len(sums) == (0 if norm_first else 16)


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="PostNorm: min_share must be"):
        PostNorm(min_share=0.0)
