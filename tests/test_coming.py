"""Coming: the numbers that rules look at before a history has them."""

import numpy as np
import pytest

from gradwatch.coming import Coming, leading
from tests.histories import INF, NAN, layers, stats


def coming(*rows: list[float | None]) -> Coming:
    return Coming.of([stats(i, layers(row)) for i, row in enumerate(rows)], count=30)


def test_the_range_is_of_the_layers_with_a_gradient() -> None:
    found = coming([1.0, None, 3.0], [0.0, None, 2.0], [INF, None, 1.0], [NAN, None, 1.0])
    np.testing.assert_equal(found.least, [1.0, 0.0, 1.0, NAN])
    np.testing.assert_equal(found.largest, [3.0, 2.0, INF, NAN])
    np.testing.assert_equal(found.total_norm[:2], [np.sqrt(10.0), 2.0])


def test_without_any_gradient() -> None:
    found = coming([None, None])
    assert (found.least.tolist(), found.largest.tolist()) == ([INF], [0.0])


def test_what_is_left() -> None:
    found = coming([1.0], [2.0], [3.0])
    left = found.after(32)
    assert (left.count, left.grad_norm.tolist(), left.least.tolist()) == (32, [[3.0]], [3.0])
    assert [len(found.after(30)), len(left), len(found.after(33))] == [3, 1, 0]


@pytest.mark.parametrize(("calm", "steps"), [([], 0), ([False, True], 0), ([True, True, False], 2), ([True] * 3, 3)])
def test_how_many_are_calm_from_the_first_on(calm: list[bool], steps: int) -> None:
    assert leading(np.array(calm, bool)) == steps
