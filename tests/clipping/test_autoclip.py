"""AutoClip against NumPy's percentile of all norms so far."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping.autoclip import AutoClip
from tests.clipping.norms import clip, counting, limits, noisy, run
from tests.tensors import INF, NAN


def published(norms, percentile):
    """Algorithm 1: the norm joins the history, then the percentile of that is the limit."""
    return [np.percentile(norms[: i + 1], percentile) for i in range(len(norms))]


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 150), spread=st.floats(0, 2), percentile=st.floats(0, 100), seed=st.integers(0, 2**31))
def test_is_as_published_step_by_step(steps, spread, percentile, seed):
    norms = noisy(steps, spread, seed=seed)
    np.testing.assert_allclose(limits(AutoClip(percentile), norms), published(norms, percentile), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    norms=st.lists(st.one_of(st.floats(1e-20, 1e20), st.sampled_from([0.0, NAN, INF])), max_size=60),
    window=st.integers(1, 20),
)
def test_is_the_percentile_of_the_last_norms_that_count(norms, window):
    for i, limit in enumerate(limits(AutoClip(25, window), norms)):
        last = counting(norms[: i + 1])[-window:]
        assert limit == (pytest.approx(np.percentile(last, 25), rel=1e-12) if last else INF)


def test_clips_the_share_of_steps_that_it_is_asked_for():
    clipped = [float(record.clipped) for record in run(AutoClip(90), noisy(3000))]
    assert np.mean(clipped[1000:]) == pytest.approx(0.1, abs=0.02)


def test_one_nan_makes_no_later_limit_nan():
    """Published, it makes all of them NaN, and every gradient."""
    norms = [1.0, 2.0, NAN, 3.0, 4.0]
    assert np.isnan(published(norms, 50)[2:]).all()
    assert limits(AutoClip(50), norms) == [1.0, 1.5, 1.5, 2.0, 2.5]


def test_zeros_do_not_end_training():
    """Published, with a tenth of zeros the limit is zero, and every gradient."""
    norms = [0.0, 0.0, *[1.0] * 9]
    assert published(norms, 10)[-1] == 0
    assert clip(AutoClip(10), 1.0)[1] == pytest.approx(1.0)
    assert limits(AutoClip(10), norms) == [INF, INF, *[1.0] * 9]


def test_a_level_is_followed_within_the_window():
    seen = limits(AutoClip(90, window=100), [1.0] * 200 + [5.0] * 100 + [0.2] * 100)
    assert seen[199] == 1.0
    assert seen[211] == 5.0
    assert seen[399] == 0.2


@pytest.mark.parametrize("percentile", [-1, 100.5, NAN, INF])
def test_refuses_a_percentile_that_is_none(percentile):
    with pytest.raises(ValueError, match=r"AutoClip: percentile must be at least 0 and at most 100, got"):
        AutoClip(percentile)


def test_refuses_what_is_no_number():
    with pytest.raises(TypeError, match=r"AutoClip: percentile must be a number, got '10'"):
        AutoClip("10")
    with pytest.raises(ValueError, match=r"AutoClip: window must be a whole number from 1, got 0"):
        AutoClip(window=0)
