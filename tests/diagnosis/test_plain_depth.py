from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import PlainDepth
from gradwatch.profile import BackwardProfile, Segment, TimeSteps
from tests.diagnosis.profiles import BLOCK, PROFILES, alert, chain


def explain(profile: BackwardProfile | None, rule: str = "vanishing") -> Diagnosis | None:
    return PlainDepth().explain(History(), profile, [alert(rule)])


def test_so_deep_for_its_width_that_no_scale_will_do() -> None:
    found = explain(chain(40, "Relu", 0.5, 1.0, width=16))
    assert found is not None
    assert (found.cause, found.change, found.confidence) == ("plain_depth", "residual", 0.95)
    assert found.evidence[0].startswith("the gradient passes 40 layers one after the other")
    assert "add up to 2.5" in found.evidence[2]  # 40 / 16
    assert f"x + f(x) / {math.sqrt(40):.3g}" in found.remedy
    assert found.layers[:3] == ("fc0", "fc1", "fc2")  # that behind all of them is hit worst


def test_wide_enough_a_better_scale_is_as_good() -> None:
    found = explain(chain(12, "Relu", 0.5, 1.0))
    assert found is not None
    assert (found.confidence, len(found.evidence)) == (0.4, 2)


def test_where_the_gradient_ends_the_weights_beyond_count() -> None:
    deep = PROFILES["deep and narrow"]
    found = explain(replace(deep, segments=PROFILES["dead"].segments))
    assert found is not None
    assert (found.layers, found.confidence) == ((*(f"fc{i}" for i in range(40)), "head"), 0.95)


def test_a_product_with_what_is_no_parameter_is_no_layer() -> None:
    """As with the matrix that says which nodes of a graph are neighbours; it has no name outside of all modules."""
    neighbours = Segment("", "weight", "Mm", 0.5, 1.0)
    deep = chain(24, "Relu", 0.5, 0.5, width=16)
    found = explain(replace(deep, segments=tuple(s for pair in deep.segments for s in (neighbours, pair))))
    assert found is not None
    assert found.evidence[0].startswith("the gradient passes 24 layers one after the other")
    assert found.remedy.startswith("add skip connections around the layers fc1 ... head, x + f(x) / 4.9")


def test_names_that_are_missing() -> None:
    deep = chain(24, "Relu", 0.5, 0.5, width=16)
    found = explain(replace(deep, segments=tuple(replace(s, layer="", weight=None) for s in deep.segments)))
    assert found is not None
    assert found.remedy.startswith("add skip connections around each layer, x + f(x) / 4.9")


def test_growth_counts_as_well() -> None:
    found = PlainDepth().explain(
        History(), chain(12, "Relu", 0.5, 4.0), [alert("exploding"), alert("vanishing", "fc5")]
    )
    assert found is not None
    assert found.layers[0] == "fc1"
    assert explain(chain(12, "Relu", 0.5, 4.0), rule="vanishing") is None


def test_skip_connections_are_there_already() -> None:
    deep = PROFILES["deep and narrow"]
    assert explain(replace(deep, segments=(*deep.segments, BLOCK))) is None


@pytest.mark.parametrize("name", ["healthy", "saturated", "dead", "nothing", "NaN", "one layer"])
def test_what_is_not_deep_or_not_ill(name: str) -> None:
    assert explain(PROFILES[name]) is None
    assert explain(None) is None


def test_time_steps_are_no_layers() -> None:
    times = TimeSteps("fc1", np.full(39, 0.25), np.ones(40))
    deep = PROFILES["deep and narrow"]
    cell = tuple(replace(s, layer="fc1") for s in deep.segments)
    assert explain(replace(deep, segments=cell, time_steps=(times,))) is None


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="PlainDepth: min_depth must be a whole number from 2, got 1"):
        PlainDepth(min_depth=1)
    with pytest.raises(ValueError, match="PlainDepth: max_ratio must be above 0"):
        PlainDepth(max_ratio=0.0)
