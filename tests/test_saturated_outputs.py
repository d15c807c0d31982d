"""The outputs of activations that have nearly no derivative, and the layer that they are counted for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradwatch.saturated_outputs import SaturatedOutputs, feeding_row
from tests.tensors import INF, NAN

LIMITS = (-1.0, 1.0)


def seen(*outputs: Tensor, row: int = 2) -> dict[int, float]:
    """Of outputs of a layer whose parameter has this row."""
    p = nn.Parameter(torch.ones(()))
    counted = SaturatedOutputs({id(p): row})
    for output in outputs:
        counted.listen(LIMITS, nn.Identity(), (), output * p)
    return {row: found.saturated for row, found in counted.take().items()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, -0.9], 0.0),
        ([1.0, -1.0], 1.0),  # the limits are beyond
        ([INF, -INF, 0.0, 0.0], 0.5),
        ([NAN, 2.0], 0.5),
    ],
)
def test_the_share_beyond(values: list[float], expected: float) -> None:
    assert seen(torch.tensor(values)) == {2: expected}


def test_all_calls_count_and_what_is_empty_or_not_watched_is_none() -> None:
    assert seen(torch.tensor([2.0]), torch.tensor([0.0, 0.0, 0.0])) == {2: 0.25}
    assert seen(torch.ones(0)) == {}
    assert seen(torch.ones(3), row=-1) == {}


def test_feeding_row_looks_at_few_nodes() -> None:
    p = nn.Parameter(torch.ones(2))
    near, far = p, p
    for _ in range(10):
        near = near * 2
    for _ in range(50):
        far = far * 2
    assert feeding_row(near, {id(p): 3}) == 3
    assert feeding_row(far, {id(p): 3}) is None
    assert feeding_row(near, {}) is None
    assert feeding_row(torch.ones(2), {id(p): 3}) is None
