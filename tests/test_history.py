from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradwatch import History
from gradwatch.history import MAD_TO_STD, finite_median
from gradwatch.records import to_plain
from tests.histories import CHANGING, HOSTILE, INF, NAN, Run, history_of, layers, noisy, stats

FIELDS = ("steps", "grad_norm", "has_grad", "total_norm")

every_run = pytest.mark.parametrize("run", [*HOSTILE.values(), *CHANGING.values()], ids=[*HOSTILE, *CHANGING])


def assert_same(one: History, other: History) -> None:
    assert (one.layers, len(one), one.count) == (other.layers, len(other), other.count)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    np.testing.assert_array_equal(one.update_ratio, other.update_ratio)
    np.testing.assert_array_equal(one.data_rms, other.data_rms)
    assert (one.latest is None) == (other.latest is None)
    if one.latest is not None and other.latest is not None:
        np.testing.assert_array_equal(one.latest.grad_norm, other.latest.grad_norm)
        assert (one.latest.step, one.latest.layers) == (other.latest.step, other.latest.layers)


@given(count=st.integers(0, 40), window=st.integers(1, 12))
def test_the_newest_steps_are_kept_in_order(count: int, window: int) -> None:
    rows = np.random.default_rng(count).random((count, 2))
    history = History(window)
    for i, row in enumerate(rows.tolist()):
        history.append(stats(10 * i, layers(row)))
        kept = rows[max(0, i + 1 - window) : i + 1]
        np.testing.assert_array_equal(history.grad_norm, kept)
        np.testing.assert_allclose(history.total_norm, np.hypot(*kept.T), rtol=1e-12)
        assert history.steps.tolist() == list(range(0, 10 * i + 1, 10))[-window:]
        assert history.latest is not None
        assert history.latest.step == 10 * i
    assert (len(history), history.count) == (min(count, window), count)


@pytest.mark.parametrize("run", HOSTILE.values(), ids=HOSTILE)
def test_rows_are_what_was_measured(run: Run) -> None:
    history = history_of(run)
    assert history.layers == (tuple(run[-1]) if run else ())
    assert history.steps.tolist() == list(range(len(run)))
    for step, norms, has_grad in zip(run, history.grad_norm, history.has_grad):
        np.testing.assert_array_equal(norms, [norm or 0.0 for norm in step.values()])
        assert has_grad.tolist() == [norm is not None for norm in step.values()]


def test_a_new_layer_had_no_gradient_and_a_lost_layer_is_gone() -> None:
    history = history_of([{"a": 1.0, "b": 2.0}, {"b": 3.0, "c": 4.0}])
    assert history.layers == ("b", "c")
    assert history.grad_norm.tolist() == [[2.0, 0.0], [3.0, 4.0]]
    assert history.has_grad.tolist() == [[True, False], [True, True]]
    assert history.total_norm[0] == pytest.approx(5**0.5)


def test_no_gradient_is_not_zero() -> None:
    history = History.from_grad_norms(a=[None, 0.0])
    assert history.grad_norm.tolist() == [[0.0], [0.0]]
    assert history.has_grad.tolist() == [[False], [True]]


@pytest.mark.parametrize("what", ["update_ratio", "data_rms"])
def test_the_last_one_known_of_each_layer_is_kept(what: str) -> None:
    history = history_of([])
    step = layers([1.0, 1.0])
    assert getattr(history, what).tolist() == []
    history.append(stats(0, step))
    np.testing.assert_array_equal(getattr(history, what), [NAN, NAN])
    history.append(stats(1, step, **{what: np.array([0.1, NAN])}))
    history.append(stats(2, step, **{what: np.array([NAN, 0.2])}))
    history.append(stats(3, step))
    assert getattr(history, what).tolist() == [0.1, 0.2]
    history.append(stats(4, {"fc1": 1.0, "new": 1.0}))
    np.testing.assert_array_equal(getattr(history, what), [0.2, NAN])


def test_steps_before_the_latest() -> None:
    history = History.from_grad_norms(a=[1.0, NAN, None, 4.0, 5.0])
    norms, usable = history.before_latest(3)
    np.testing.assert_array_equal(norms, [[NAN], [0.0], [4.0]])
    assert usable.tolist() == [[False], [False], [True]]
    assert history.before_latest(100)[0].shape == (4, 1)
    assert History.from_grad_norms(a=[1.0]).before_latest(3)[0].shape == (0, 1)
    assert History().before_latest(3)[0].shape == (0, 0)


norms = arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.integers(0, 4)),
    elements=st.one_of(st.floats(0.0, 1e300), st.sampled_from([NAN, INF])),
)


@given(norms=norms, data=st.data())
def test_the_median_of_what_is_finite_and_present(norms: np.ndarray, data: st.DataObject) -> None:
    present = data.draw(arrays(np.bool_, norms.shape))
    found = finite_median(norms, present)
    for value, column, there in zip(found, norms.T, present.T):
        kept = [float(x) for x, p in zip(column, there) if p and np.isfinite(x)]
        np.testing.assert_equal(value, statistics.median(kept) if kept else NAN)
    assert found.shape == (norms.shape[1],)


@pytest.mark.parametrize("count", [1, 2, 30, 60])
def test_the_history_as_it_was(count: int) -> None:
    run = noisy(60)
    assert_same(history_of(run).up_to(count), history_of(run[:count]))


def test_of_an_earlier_step_it_is_known_how_far_the_one_before_moved() -> None:
    history = history_of(noisy(3))
    history.append(stats(3, layers([1.0, 1.0, 1.0]), total_update=0.25))
    history.append(stats(4, layers([1.0, 1.0, 1.0])))
    moved = [history.up_to(count).latest.total_update for count in (3, 4)]  # type: ignore[union-attr]
    assert moved == [None, 0.25]


@every_run
def test_what_is_usual_is_that_of_the_steps_before(run: Run) -> None:
    """Also after the layers have changed, and in a history that goes on from its state."""
    for count in range(1, len(run), 7):
        history = history_of(run[:count])
        restored = History(512)
        restored.load_state_dict(history.state_dict())
        for one in (history, restored, history_of(run).up_to(count)):
            if one.layers != history.layers:
                continue  # the arrays of the layers that are there now
            norms, present = one.before_latest(10)
            logs = np.log(np.where(present & (norms > 0), norms, NAN))
            for i, column in enumerate(logs.T):
                kept = column[~np.isnan(column)].tolist()
                usual = one.usual(10)
                assert usual.steps[i] == len(kept)
                level = statistics.median(kept) if kept else NAN
                np.testing.assert_allclose(usual.level[i], level, rtol=1e-12)
                deviations = [abs(x - level) for x in kept]
                spread = MAD_TO_STD * statistics.median(deviations) if kept else NAN
                np.testing.assert_allclose(usual.spread[i], spread, rtol=1e-9, atol=1e-12)


def test_what_is_usual_is_kept_for_who_asks_next_and_no_longer() -> None:
    history = history_of(noisy(20))
    first = history.usual(10)
    assert history.usual(10) is first
    assert history.usual(5) is not first
    history.append(stats(20, layers([9.0, 9.0, 9.0])))
    assert history.usual(10) is not first


def test_looking_back_changes_nothing() -> None:
    history = history_of(noisy(20))
    then = history.up_to(5)
    history.append(stats(20, layers([9.0, 9.0, 9.0])))
    assert (then.count, len(then), history.count) == (5, 5, 21)


@every_run
def test_a_history_continues_from_its_state(run: Run) -> None:
    cut = len(run) // 2
    restored = History(512)
    restored.load_state_dict(history_of(run[:cut]).state_dict())
    assert_same(restored, history_of(run[:cut]))
    for number, step in enumerate(run[cut:], cut):
        restored.append(stats(number, step))
    assert_same(restored, history_of(run))


def test_what_the_first_step_showed_is_known_later() -> None:
    """But for the histogram, which would be most of a checkpoint."""
    seen = {
        "input_size": np.array([3.0, NAN]),
        "half": True,
        "output_error": np.float64(0.5),
        "nonfinite_ranks": (1, 2),
    }
    history, restored = history_of([stats(0, layers([1.0, None]), histogram=np.ones((2, 4)), **seen)]), History()
    restored.load_state_dict(history.state_dict())
    assert history.first is not None
    expected = replace(history.first, histogram=None)
    assert to_plain(restored.first) == to_plain(expected)
    assert restored.first is not None
    assert (type(restored.first.output_error), restored.first.has_grad.dtype) == (float, np.bool_)


def test_a_shorter_window_takes_the_newest_steps() -> None:
    restored = History(window=4)
    restored.load_state_dict(history_of(noisy(20)).state_dict())
    np.testing.assert_array_equal(restored.grad_norm, history_of(noisy(20)).grad_norm[-4:])
    assert restored.count == 20


def test_state_is_a_copy() -> None:
    history = history_of(noisy(20))
    state = history.state_dict()
    state["grad_norm"][:] = -1.0
    assert (history.grad_norm > 0).all()


def test_histories_by_hand() -> None:
    assert History.from_grad_norms({"block.0": [1.0]}, head=[2.0]).layers == ("block.0", "head")
    assert len(History.from_grad_norms()) == len(History.from_grad_norms(a=[])) == 0
    with pytest.raises(ValueError, match=r"as many steps as the others, got \{'a': 2, 'b': 1\}"):
        History.from_grad_norms(a=[1.0, 2.0], b=[1.0])


@pytest.mark.parametrize("window", [0, -1, 1.5, "9", None, True])
def test_a_window_is_a_whole_number(window: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"window must be a whole number from 1, got"):
        History(window)  # type: ignore[arg-type]


def test_an_empty_history_has_no_latest_step() -> None:
    history = History()
    assert history.latest is None
    with pytest.raises(ValueError, match="no step was appended yet"):
        _ = history.now
    history.append(stats(3, layers([1.0])))
    assert history.now is history.latest


def test_the_first_step_that_found_the_parameters_broken_is_kept() -> None:
    history, again = history_of([]), history_of([])
    assert history.broken_at == -1
    for step, broken in enumerate([None, False, True, None, True]):
        history.append(stats(step, {"fc": 1.0}, broken=broken))
    assert history.broken_at == 2
    again.load_state_dict(history.state_dict())
    assert again.broken_at == 2
