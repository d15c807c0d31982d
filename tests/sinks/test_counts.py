"""Counts that are written when they change make the chart that every step would have made."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.sinks.counts import Counts


@given(st.lists(st.integers(0, 2), min_size=1, max_size=350), st.integers(1, 3))
def test_a_line_through_what_is_written_is_a_line_through_all(values, every):
    steps = np.arange(len(values)) * every
    counts, rows = Counts(), {}
    for step, value in zip(steps.tolist(), values):
        due = counts.due(step, {"alerts": value})
        assert all(earlier not in rows for earlier in due)
        rows.update({s: numbers["alerts"] for s, numbers in due.items()})
    assert list(rows) == sorted(rows)
    seen = steps <= max(rows)
    np.testing.assert_array_equal(np.interp(steps[seen], list(rows), list(rows.values())), np.array(values)[seen])
    assert max(steps) - max(rows) < Counts.EVERY


def test_what_does_not_change_is_written_now_and_then():
    counts = Counts()
    written = [step for step in range(1000) if counts.due(step, {"alerts": 3})]
    assert written == list(range(0, 1000, Counts.EVERY))


def test_a_run_that_begins_again_is_written_from_its_first_step():
    counts = Counts()
    assert [list(counts.due(step, {"alerts": 0})) for step in (0, 250, 3, 4)] == [[0], [250], [3], []]
