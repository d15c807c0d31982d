from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch import tags
from gradwatch.tensorboard_plugin.series import Series, Standing, described, histogram_series


def series(steps: list[int], written: list[float], numbers: list[list[float]]) -> Series:
    content = {"version": 1, "stats": ["grad_norm"], "layers": [f"l{i}" for i in range(len(numbers[0]))]}
    array = np.array(numbers, np.float32)[:, None, :]
    return Series(content, np.array(steps, np.int64), np.array(written), array)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_what_stands_is_what_a_log_rewound_at_every_restart_would_hold(steps: list[int]) -> None:
    kept: list[int] = []
    for i, step in enumerate(steps):  # the slow way: forget what comes at or after each step that is written
        kept = [j for j in kept if steps[j] < step] + [i]
    written = np.arange(len(steps), dtype=np.float64)
    standing = Standing([(np.array(steps, np.int64), written)])
    assert np.flatnonzero(standing.of(np.array(steps, np.int64), written)).tolist() == kept


def test_the_tags_of_a_run_are_judged_together() -> None:
    first = np.arange(0, 10), np.arange(10.0, 20.0)  # one tag: steps 0 to 9
    second = np.arange(4, 6), np.array([30.0, 31.0])  # another: resumed at step 4, at 5 now
    standing = Standing([first, second])
    assert standing.of(*first).tolist() == [True] * 4 + [False] * 6
    assert standing.of(*second).all()
    # An alert of step 7 that the first of the two wrote, and one of step 3.
    assert standing.of(np.array([7, 3]), np.array([17.0, 17.0])).tolist() == [False, True]


def test_a_total_is_over_the_layers_that_have_a_gradient() -> None:
    rows = [[3.0, 4.0, tags.NO_GRADIENT], [1e-30, tags.NO_GRADIENT, tags.NO_GRADIENT], [3e38, 3e38, 0.0]]
    rows += [[np.nan, 1.0, 1.0], [np.inf, tags.NO_GRADIENT, 1.0]]
    found = series([0, 1, 2, 3, 4], [0.0] * 5, rows).total
    np.testing.assert_allclose(found, [5.0, 1e-30, np.sqrt(2) * 3e38, np.nan, np.inf], rtol=1e-6)


def test_only_leaves_all_of_it_alone_where_all_stands() -> None:
    s = series([0, 1, 2], [1.0, 2.0, 3.0], [[1.0], [2.0], [3.0]])
    assert s.only(Standing([(s.steps, s.written)])) is s
    resumed = Standing([(s.steps, s.written), (np.array([1]), np.array([9.0]))])
    assert s.only(resumed).row("grad_norm").tolist() == [[1.0]]


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"[]", b'"x"', b"{}", b'{"version": 2}', b'{"version": 1, "layers": "ab"}']
)
def test_what_does_not_describe_a_tag(content: bytes) -> None:
    assert described(content) is None


def test_histograms_go_where_their_limits_say() -> None:
    edges = tags.HISTOGRAM_EDGES
    rows = [(3, 1.0, edges[1:3], [5, 7]), (4, 2.0, np.float32(edges[-1:]), [2.0]), (5, 3.0, [], [])]
    found = histogram_series(rows)
    assert found.numbers is not None
    counts = found.numbers[:, 0]
    assert counts[0, :3].tolist() == [5, 7, 0]
    assert counts[1, -1] == 2
    assert counts.sum() == 14
    assert found.steps.tolist() == [3, 4, 5]
