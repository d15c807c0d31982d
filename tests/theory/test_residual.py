"""Residual blocks against closed forms: a block adds its branch's squared gain to the skip's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gradwatch.profile import BackwardProfile
from tests.theory.networks import BATCH, WIDTH, Block, plain_norm, profile_of

BLOCKS = 24


def profile_of_blocks(*blocks: Block) -> BackwardProfile:
    return profile_of(nn.Sequential(*blocks), torch.randn(BATCH, WIDTH).requires_grad_())


@pytest.mark.parametrize("scale", [1.0, 0.3, 1 / math.sqrt(BLOCKS)])
def test_a_block_passes_one_and_what_its_branch_passes(scale: float) -> None:
    torch.manual_seed(0)
    profile = profile_of_blocks(*(Block(scale) for _ in range(BLOCKS)))
    assert [segment.kind for segment in profile.segments] == ["residual"] * BLOCKS
    assert profile.gain_per_layer == pytest.approx(1 + scale**2, rel=0.03)
    for segment in profile.segments:
        assert segment.skip == pytest.approx(1.0, rel=1e-5)
    branches = [sum(branch.gain for branch in segment.branches) for segment in profile.segments]
    assert np.mean(branches) == pytest.approx(scale**2, rel=0.03)
    assert branches == pytest.approx([scale**2] * BLOCKS, rel=0.15)


def test_branches_of_one_over_the_root_of_the_depth_bound_the_whole() -> None:
    """(1 + 1/L)^L is below e at every depth L."""
    torch.manual_seed(1)
    profile = profile_of_blocks(*(Block(1 / math.sqrt(BLOCKS)) for _ in range(BLOCKS)))
    assert math.exp(profile.log_gain) == pytest.approx((1 + 1 / BLOCKS) ** BLOCKS, rel=0.05)


def test_a_norm_before_each_branch_turns_growth_from_exponential_to_linear() -> None:
    """The stream's variance grows by scale^2 a block, q_l = 1 + l scale^2, and a branch divides by its root.

    So a block passes 1 + scale^2 / q_l = q_(l+1) / q_l, and all of them q_L / q_0.
    """
    torch.manual_seed(0)
    profile = profile_of_blocks(*(Block(1.0, before=plain_norm()) for _ in range(BLOCKS)))
    for block, segment in zip(reversed(range(BLOCKS)), profile.segments):
        assert segment.gain == pytest.approx((2 + block) / (1 + block), rel=0.03)
    assert math.exp(profile.log_gain) == pytest.approx(1 + BLOCKS, rel=0.05)


def test_a_norm_after_each_sum_takes_back_what_the_branch_added() -> None:
    """Xiong et al. 2020: 1 + scale^2 by the block, 1 / (1 + scale^2) by the norm, if the branch is unrelated to x."""
    torch.manual_seed(0)
    profile = profile_of_blocks(*(Block(1.0, after=plain_norm()) for _ in range(BLOCKS)))
    assert profile.factor("residual") == pytest.approx(2.0, rel=0.03)
    assert profile.factor("norm") == pytest.approx(1 / 2, rel=0.03)


def test_a_branch_is_told_apart_into_its_own_factors() -> None:
    torch.manual_seed(0)
    (segment,) = profile_of_blocks(Block(1.0)).segments
    (branch,) = segment.branches
    assert [inner.kind for inner in branch.segments] == ["weight", "activation", "weight"]
    assert math.prod(inner.gain for inner in branch.segments) == pytest.approx(branch.gain, rel=1e-5)
    assert [inner.gain for inner in branch.segments] == pytest.approx([1.0, 0.5, 2.0], rel=0.03)


def test_without_the_skip_nothing_adds_up() -> None:
    """The same branches in a row: scale^2 each, so that half a scale leaves 4^-L."""
    torch.manual_seed(0)
    branches = nn.Sequential(*(Block(0.5).branch for _ in range(BLOCKS)))
    profile = profile_of(branches, torch.randn(BATCH, WIDTH).requires_grad_())
    assert profile.log_gain / BLOCKS == pytest.approx(math.log(0.25), rel=0.02)
