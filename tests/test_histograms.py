"""Histograms of log10 |gradient| against NumPy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.histograms import (
    BINS,
    CHUNK,
    FIRST_NONFINITE,
    MANTISSA_BITS,
    MOST,
    SHIFT,
    _read_by_numpy,
    _read_by_torch,
    element_stats,
    log10_counts,
)
from gradwatch.tags import HISTOGRAM_EDGES

NAN, INF = float("nan"), float("inf")
GENERATOR = np.random.default_rng(0)

SAMPLES = {
    "normal": GENERATOR.normal(size=100_003),
    "log-normal": GENERATOR.lognormal(sigma=3.0, size=50_000),
    "uniform": GENERATOR.uniform(-1, 1, size=20_000),
    "over ten decades": 10.0 ** GENERATOR.uniform(-9, 2, size=200_000),
    "half zeros": GENERATOR.normal(size=80_000) * (GENERATOR.uniform(size=80_000) < 0.5),
    "student": GENERATOR.standard_t(2, size=60_000),
}


def bin_edges() -> np.ndarray:
    """Lower edge of each bin and the upper edge of the last, from the bits of float32."""
    return np.arange(FIRST_NONFINITE + 1, dtype=np.uint32).__lshift__(23 - MANTISSA_BITS).view(np.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sample", SAMPLES)
def test_counts_are_those_of_numpy(sample, dtype):
    values = torch.from_numpy(SAMPLES[sample]).to(dtype)
    found = element_stats(values)
    magnitudes = np.abs(values.to(torch.float32).numpy())
    finite = magnitudes[np.isfinite(magnitudes)]
    expected, _ = np.histogram(finite[finite > 0], bin_edges())
    np.testing.assert_array_equal(found.counts[:FIRST_NONFINITE], expected)
    assert found.zeros == np.count_nonzero(magnitudes == 0)
    assert found.max_abs == pytest.approx(finite.max(), rel=1e-7)
    assert found.numel == len(values)
    assert found.nonfinite == len(magnitudes) - len(finite)


@pytest.mark.parametrize("last", [1.0, 0.0, 1e300, INF, NAN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sample", SAMPLES)
def test_accelerators_count_as_the_cpu_does(sample, dtype, last):
    values = torch.tensor([*SAMPLES[sample], last]).to(dtype)
    counts, *others = _read_by_numpy(values, 1)
    expected, *expected_others = _read_by_torch(values, 1)
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_equal(others, expected_others)


@pytest.mark.parametrize("sample", SAMPLES)
def test_log10_counts_are_those_of_numpy_within_one_bin(sample):
    magnitudes = np.abs(SAMPLES[sample].astype(np.float32).astype(np.float64))
    found = np.cumsum(log10_counts(element_stats(torch.from_numpy(SAMPLES[sample]).float()).counts))
    logs = np.log10(magnitudes[magnitudes > 0])
    width = np.log10(1 + 2.0**-MANTISSA_BITS)
    for edge, below in zip(HISTOGRAM_EDGES[1:-1], found):
        assert np.count_nonzero(logs < edge - width) <= below <= np.count_nonzero(logs < edge + width)
    assert found[-1] == len(logs)


@pytest.mark.parametrize("sample", SAMPLES)
def test_quantiles_by_bins_are_within_one_percent_or_so(sample):
    counts = element_stats(torch.from_numpy(SAMPLES[sample])).counts[:FIRST_NONFINITE]
    magnitudes = np.abs(SAMPLES[sample][SAMPLES[sample] != 0])
    ranks = np.linspace(0.01, 0.99, 99)
    below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    known = np.append(True, np.diff(below) > 0)
    np.testing.assert_allclose(
        np.interp(ranks, below[known], bin_edges().astype(np.float64)[known]),
        np.quantile(magnitudes, ranks),
        rtol=0.012,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(width=32) | st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e-45, -1e-45, 1e-38, 3.4e38]), max_size=40
    ),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_every_element_is_counted_once(values, dtype):
    tensor = torch.tensor(values, dtype=dtype)
    array = tensor.double().numpy()
    found = element_stats(tensor)
    finite = np.abs(array[np.isfinite(array)])
    assert found.zeros == np.count_nonzero(finite == 0)
    assert found.nonfinite == np.count_nonzero(~np.isfinite(array))
    assert found.counts.min() >= 0
    assert found.zeros + found.counts.sum() == found.numel == len(values)
    assert found.max_abs == pytest.approx(finite.max(initial=0.0), rel=1e-6, abs=0)
    assert log10_counts(found.counts).sum() == np.count_nonzero(finite)


def test_nan_and_inf_of_either_sign_are_counted():
    values = torch.tensor([NAN, -NAN, INF, -INF, 1.0]).copysign(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]))
    found = element_stats(values)
    assert (found.nonfinite, found.max_abs, found.zeros) == (4, 1.0, 0)


@pytest.mark.parametrize("value", [1e-300, 1e300, 5e-324])
def test_float64_beyond_float32_is_neither_zero_nor_infinite(value):
    found = element_stats(torch.tensor([value], dtype=torch.float64))
    assert (found.zeros, found.nonfinite, found.max_abs) == (0, 0, value)
    buckets = log10_counts(found.counts)
    assert buckets[-1 if value > 1 else 0] == buckets.sum() == 1


@pytest.mark.parametrize("shape", [(0,), (), (3, 0), (CHUNK,), (CHUNK + 1,), (2, CHUNK)])
def test_any_shape(shape):
    found = element_stats(torch.full(shape, 0.5))
    assert found.counts.shape == (BINS,)
    assert found.counts.sum() == found.numel == int(np.prod(shape))


def test_layouts_that_are_not_contiguous():
    values = torch.arange(12.0).reshape(3, 4)
    for view in (values.t(), values[:, ::2], values[:1].expand(5, 4)):
        found, expected = element_stats(view), element_stats(view.contiguous())
        np.testing.assert_array_equal(found.counts, expected.counts)
        assert (found.zeros, found.numel, found.max_abs) == (expected.zeros, expected.numel, expected.max_abs)


def test_log10_counts_of_several_layers_are_those_of_each():
    counts = np.stack([element_stats(torch.from_numpy(SAMPLES[name])).counts for name in ("normal", "student")])
    together = log10_counts(counts)
    assert together.shape == (2, len(HISTOGRAM_EDGES) - 1)
    np.testing.assert_array_equal(together, np.stack([log10_counts(row) for row in counts]))


def test_what_lies_beyond_the_edges_is_in_the_outermost_buckets():
    buckets = log10_counts(element_stats(torch.tensor([1e-30, 1e-40, 1e20, 1.5])).counts)
    assert (buckets[0], buckets[-1], buckets.sum()) == (2, 1, 4)
    assert buckets[np.searchsorted(HISTOGRAM_EDGES, np.log10(1.5)) - 1] == 1


class TestLarge:
    """Of many elements the histogram is a sample's, and all else exact."""

    ELEMENTS = 2 * MOST + 12_345

    def quantiles(self, values: torch.Tensor) -> np.ndarray:
        counts = element_stats(values).counts[:FIRST_NONFINITE]
        below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
        return np.interp(np.linspace(0.05, 0.95, 19), below, bin_edges().astype(np.float64))

    def exact(self, values: torch.Tensor) -> np.ndarray:
        return np.quantile(values.abs().double().numpy(), np.linspace(0.05, 0.95, 19))

    @pytest.mark.parametrize("shape", [(ELEMENTS,), (1024, 2304), (512, 512, 3, 3)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_quantiles_are_within_two_percent(self, shape, dtype):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        np.testing.assert_allclose(self.quantiles(values), self.exact(values.float()), rtol=0.02)

    def test_every_column_of_a_row_or_kernel_is_met_as_often(self):
        """Of kernels of 3 by 3 every third element would be of one column."""
        values = torch.ones(512, 512, 3, 3)
        values[..., 1:] = 1000.0
        counts = element_stats(values).counts
        assert counts[counts > 0] / counts.sum() == pytest.approx([1 / 3, 2 / 3], rel=1e-3)

    def test_zeros_largest_and_the_sum_are_those_of_every_element(self):
        values = torch.randn(self.ELEMENTS, generator=torch.Generator().manual_seed(2))
        values[::7] = 0.0
        values[self.ELEMENTS - 2] = -50.0
        found = element_stats(values)
        assert found.zeros == np.count_nonzero(values.numpy() == 0)
        assert (found.max_abs, found.numel, found.nonfinite) == (50.0, self.ELEMENTS, 0)
        assert found.counts.sum() == found.numel - found.zeros

    @pytest.mark.parametrize("few", [[NAN], [INF, -INF, 2.0], [1.0]])
    def test_what_a_sample_could_miss_is_looked_for_in_all(self, few):
        values = torch.zeros(self.ELEMENTS)
        values[1 : 1 + len(few)] = torch.tensor(few)
        found = element_stats(values)
        assert found.nonfinite == np.count_nonzero(~np.isfinite(few))
        assert found.zeros + found.counts.sum() == found.numel
        assert found.zeros == self.ELEMENTS - len(few)

    def test_a_few_rows_of_an_embedding_are_all_counted(self):
        values = torch.zeros(4096, 512)
        values[[3, 1000, 4000]] = 0.5
        found = element_stats(values)
        assert found.counts[found.counts > 0].tolist() == [3 * 512]


def test_bins_are_the_first_bits_of_each_element():
    values = torch.cat([SPECIAL, torch.randn(10_000, generator=torch.Generator().manual_seed(3))])
    magnitudes = np.abs(values.numpy())
    expected = np.bincount(magnitudes[magnitudes != 0].view(np.uint32) >> SHIFT, minlength=BINS)
    np.testing.assert_array_equal(element_stats(values).counts, expected)


SPECIAL = torch.tensor([0.0, -0.0, NAN, -NAN, INF, -INF, 1e-45, -1e-45, 1e-38, 3.4e38])
