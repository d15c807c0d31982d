"""The statistics of norms against NumPy's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.clipping.statistics import NormWindow, beside, number, quantile, spike_limit
from tests.tensors import INF, NAN

VALUES = st.lists(st.one_of(st.floats(1e-30, 1e30), st.just(NAN)), min_size=1, max_size=40)


@given(values=VALUES, share=st.floats(0, 1))
def test_quantile_is_that_of_numpy_without_nan(values, share):
    there = [v for v in values if not np.isnan(v)]
    expected = np.quantile(there, share) if there else NAN
    for given_values in (np.array(values), torch.tensor(values, dtype=torch.float64)):
        np.testing.assert_allclose(float(quantile(given_values, share)), expected, rtol=1e-12)


@given(values=st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=40), z=st.floats(0, 8), factor=st.floats(1, 10))
def test_spike_limit_is_its_equation(values, z, factor):
    logs = np.log(values)
    median = np.median(values)
    deviation = np.median(np.abs(logs - np.log(median)))
    expected = median * max(factor, np.exp(1.4826 * z * deviation))
    for padded in (np.array([NAN, *values]), torch.tensor([NAN, *values], dtype=torch.float64)):
        assert float(spike_limit(padded, factor, z, warmup=3)) == pytest.approx(expected, rel=1e-9)
        assert float(spike_limit(padded, factor, z, warmup=len(values) + 1)) == INF


def test_spike_limit_of_a_spread_beyond_all_numbers_is_none():
    norms = np.array([1e-300, 1e300] * 10)
    assert spike_limit(norms, factor=3.0, z=9.0, warmup=1) == INF


def test_the_window_keeps_the_last_norms_that_count():
    window = NormWindow(3)
    for norm in [1.0, NAN, 2.0, 0.0, INF, 3.0, -INF, 4.0]:
        window.add(np.float64(norm))
    assert window.norms.tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_number_is_exact(dtype):
    norm = torch.tensor(0.1, dtype=dtype)
    assert number(norm) == float(norm)
    assert type(number(norm)) is np.float64


def test_a_value_follows_the_norm_to_its_device():
    values = np.array([0.1, NAN])
    moved = beside(values, torch.ones((), dtype=torch.float64, device="meta"))
    assert (moved.device.type, moved.dtype, moved.shape) == ("meta", torch.float64, (2,))
    there = torch.from_numpy(values)
    assert beside(there, torch.ones((), dtype=torch.float64)) is there
    back = beside(there, np.float64(1.0))
    assert isinstance(back, np.ndarray)
    np.testing.assert_array_equal(back, values)
