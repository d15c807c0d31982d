from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch import Diagnosis, History
from gradwatch.diagnosis import ResidualBranches
from gradwatch.profile import BackwardProfile, Branch, Segment
from tests.diagnosis.profiles import INF, NAN, PROFILES, alert, begun, weight


def explain(branch: float, blocks: int, rule: str = "exploding") -> Diagnosis | None:
    """Blocks of x + f(x), where f passes ``branch`` of the squared gradient and nothing of x is in it."""
    one = [
        Segment(f"block{i}", "residual", "Add", 1 + branch, 1.0, skip=1.0, branches=(Branch(branch),))
        for i in reversed(range(blocks))
    ]
    return ResidualBranches().explain(History(), BackwardProfile(tuple(one)), [alert(rule)])


def test_branches_ten_times_too_large() -> None:
    found = explain(100.0, 6)
    assert found is not None
    assert (found.cause, found.change, found.confidence) == ("residual_branches", "init_scale", 0.9)
    assert found.layers == tuple(f"block{i}" for i in range(6))
    assert found.evidence == (
        "each of 6 residual blocks multiplies the squared gradient by 101, its branches pass 100 where the skip passes "
        "1",
        f"in all blocks together the gradient grows {101**3:.2g}-fold",
    )
    factor = float(found.remedy.partition(" by ")[2].partition(",")[0])
    assert (1 + factor**2 * 100) ** 6 == pytest.approx(math.e, rel=0.1)


@pytest.mark.parametrize(("branch", "change"), [(2.0, "norm"), (7.9, "norm"), (8.1, "init_scale")])
def test_branches_as_they_are_made_lack_a_normalisation(branch: float, change: str) -> None:
    found = explain(branch, 8)
    assert found is not None
    assert found.change == change
    first, second = found.remedy.split("; or ")
    assert (first if change == "norm" else second) == "normalise the input of each branch (pre-norm)"


def by_signal(sizes: list[float], blocks: int = 4, name: str = "block") -> Diagnosis | None:
    """A step has left nothing but NaN, so that the first step alone tells."""
    one = Segment(name, "residual", "Add", NAN, NAN, skip=1.0, branches=(Branch(NAN),))
    weights = tuple(weight(f"fc{i}", 2.0) for i in range(len(sizes)))
    profile = BackwardProfile((one,) * blocks, weights=weights)
    history = begun(profile, [4e3], input_size=np.array(sizes))
    return ResidualBranches().explain(history, profile, [alert("exploding")])


def test_where_nothing_is_finite_any_more_the_first_signal_tells() -> None:
    found = by_signal([2.0, NAN, 9.0, 60.0, 200.0])
    assert found is not None
    assert (found.cause, found.change, found.confidence, found.layers) == (
        "residual_branches",
        "init_scale",
        0.85,
        ("block",),
    )
    assert found.evidence == (
        "at the first step the layers' inputs grow from 2 to 2e+02 on their way to the output, through 4 residual "
        "blocks",
        "so each multiplies the squared signal by 10, and the squared gradient on its way back",
    )
    assert found.remedy.startswith("multiply the output of each residual branch in block by 0.17, so that all 4 blocks")


@pytest.mark.parametrize("sizes", [[2.0, 3.0, 4.0, 5.0], [200.0, 3.0, 4.0, 2.0], [2.0, NAN, 200.0], [NAN, INF], [0.0]])
def test_a_signal_that_keeps_its_size_or_is_not_known(sizes: list[float]) -> None:
    assert by_signal(sizes) is None
    assert by_signal([2.0, 2e9], blocks=0) is None


def test_names_that_are_missing_or_long() -> None:
    for name, words in (("", "branch in the model by"), ("x" * 300, f"branch in {'x' * 300} by")):
        found = by_signal([2.0, 3.0, 4.0, 2e9], name=name)
        assert found is not None
        assert words in found.remedy


@pytest.mark.parametrize(("branch", "blocks"), [(1.0, 6), (0.01, 100), (1 / 30, 30)])
def test_blocks_that_together_pass_little_more_than_e(branch: float, blocks: int) -> None:
    assert explain(branch, blocks) is None


def test_it_explains_growth_alone() -> None:
    assert explain(100.0, 6, rule="vanishing") is None


@pytest.mark.parametrize("name", ["large", "small", "healthy", "dead", "nothing", "no branch"])
def test_what_has_no_branches_that_grow(name: str) -> None:
    assert ResidualBranches().explain(History(), PROFILES[name], [alert("exploding")]) is None


@pytest.mark.parametrize(("argument", "value"), [("min_share", 0.0), ("min_log_gain", 0.0), ("usual", 0.0)])
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"ResidualBranches: {argument} must be above 0"):
        ResidualBranches(**{argument: value})
