"""Norms and sampled statistics against NumPy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import get_total_norm

from gradwatch.histograms import BINS, element_stats
from gradwatch.layers import Gradient, LayerTable
from gradwatch.stats import LARGE, ROW, HostCopy, ParameterSample, measure, per_layer, real_values, sampled_stats
from gradwatch.tags import HISTOGRAM_EDGES
from tests.models import GALLERY, as_float64, backward, build

NAN, INF = float("nan"), float("inf")


def reference(tensor: torch.Tensor) -> float:
    return float(np.linalg.norm(as_float64(tensor).reshape(-1)))


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sparse(*rows: int) -> torch.Tensor:
    """A sparse gradient with an entry for each of ``rows``, repeated ones included."""
    return torch.sparse_coo_tensor(torch.tensor([rows]), normal(len(rows), 3), (10, 3), check_invariants=True)


LAYOUTS = {
    "contiguous": normal(6, 5, 4, 3),
    "transposed": normal(40, 30).t(),
    "channels_last": normal(6, 5, 4, 3).to(memory_format=torch.channels_last),
    "every second": normal(40, 30)[::2, ::3],
    "expanded": normal(30, 1).expand(30, 50),
    "no dimension": normal(),
    "no element": normal(0, 3),
    "complex": torch.view_as_complex(normal(7, 2)),
    "conjugated": torch.view_as_complex(normal(7, 2)).conj(),
    "sparse": sparse(1, 4, 7),
    "sparse with repeated rows": sparse(1, 4, 1, 1),
    "sparse without a row": sparse(),
    "large": normal(LARGE + 17),
    "large transposed": normal(300, 301).t(),
    "large channels_last": normal(40, 64, 6, 6).to(memory_format=torch.channels_last),
    "large with gaps": normal(300, 602)[:, ::2],
    "large expanded": normal(300, 1).expand(300, 300),
    "large complex": torch.view_as_complex(normal(LARGE, 2)),
}


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 40), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    exponent=st.integers(-30, 25),
    seed=st.integers(0, 2**32),
)
@example(shape=[40, 40], dtype=torch.float32, exponent=-30, seed=0)
@example(shape=[40, 40], dtype=torch.float32, exponent=25, seed=0)
@example(shape=[40, 40], dtype=torch.bfloat16, exponent=25, seed=0)
@example(shape=[40, 40], dtype=torch.bfloat16, exponent=-30, seed=0)
@example(shape=[40, 40], dtype=torch.float16, exponent=-6, seed=0)
@example(shape=[255, 257], dtype=torch.float32, exponent=-20, seed=0)
def test_norm_at_any_shape_dtype_and_scale(shape, dtype, exponent, seed):
    if dtype is torch.float16:
        exponent = max(min(exponent, 3), -7)
    gradient = (normal(*shape, dtype=torch.float64, seed=seed) * 10.0**exponent).to(dtype)
    measured = measure([gradient])
    assert float(measured.norms[0]) == pytest.approx(reference(gradient), rel=1e-6, abs=0)
    assert float(measured.total_norm) == pytest.approx(reference(gradient), rel=1e-6, abs=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_of_any_layout(layout):
    gradient = LAYOUTS[layout]
    before = as_float64(gradient).copy()
    assert float(measure([gradient]).norms[0]) == pytest.approx(reference(gradient), rel=1e-6)
    np.testing.assert_array_equal(as_float64(gradient), before)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_norm_of_float8(dtype):
    gradient = normal(50).to(dtype)
    assert float(measure([gradient]).norms[0]) == pytest.approx(float(np.linalg.norm(gradient.double())), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-22, 1e-20, 1e-12, 1.0, 1e12, 1e17, 1e25])
@pytest.mark.parametrize("size", [1, ROW, LARGE - 1, LARGE, 20 * LARGE + 3])
def test_norm_where_squares_leave_the_range_of_float32(size, scale):
    gradient = torch.full((size,), scale)
    assert float(measure([gradient]).norms[0]) == pytest.approx(float(gradient[0]) * size**0.5, rel=1e-6)


def test_norm_of_a_tensor_where_that_of_torch_is_off():
    gradient = torch.full((30_000_000,), 0.1)
    true = float(gradient[0]) * 30_000_000**0.5
    assert float(measure([gradient]).norms[0]) == pytest.approx(true, rel=1e-6)
    assert abs(float(torch.linalg.vector_norm(gradient)) / true - 1) > 1e-5  # else ROW has become needless


@pytest.mark.parametrize("size", [1, 10, LARGE + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nan_stays_nan_and_inf_stays_inf(value, dtype, size):
    gradient = torch.ones(size, dtype=dtype)
    gradient[size // 2] = value
    measured = measure([gradient, torch.ones(2, dtype=dtype)])
    expected = [abs(value), 2**0.5]
    np.testing.assert_allclose(measured.norms.double().numpy(), expected, rtol=1e-6)
    np.testing.assert_equal(float(measured.total_norm), abs(value))


def test_nan_wins_over_inf():
    assert np.isnan(float(measure([torch.tensor([NAN, INF])]).norms[0]))
    assert np.isnan(float(measure([torch.tensor([INF]), torch.tensor([NAN])]).total_norm))


def test_one_extreme_gradient_leaves_the_others_exact():
    gradients = [torch.full((9,), 1e-30), torch.full((4,), 2.0), torch.full((9,), 1e25), torch.zeros(3)]
    assert measure(gradients).norms.tolist() == pytest.approx([3e-30, 4.0, 3e25, 0.0], rel=1e-6)


def test_mixed_dtypes_keep_their_order():
    dtypes = [torch.float32, torch.float16, torch.complex64, torch.float64, torch.bfloat16, torch.float32]
    gradients = [torch.full((4,), float(i + 1)).to(dtype) for i, dtype in enumerate(dtypes)]
    gradients.append(sparse(1, 1, 2))
    measured = measure(gradients)
    assert measured.norms.tolist() == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0, 12.0, reference(gradients[-1])])
    assert float(measured.total_norm) == pytest.approx(np.linalg.norm(measured.norms.numpy()))


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=3), min_size=1, max_size=6),
    exponent=st.integers(-6, 6),
    seed=st.integers(0, 2**32),
)
def test_total_norm_is_that_of_torch_bit_for_bit(shapes, exponent, seed):
    gradients = [normal(*shape, seed=seed + i) * 10.0**exponent for i, shape in enumerate(shapes)]
    total = measure(gradients).total_norm
    assert total.dtype is torch.float32
    assert torch.equal(total, get_total_norm(gradients))


def test_no_gradients_have_the_norm_zero():
    measured = measure([])
    assert measured.norms.shape == (0,)
    assert float(measured.total_norm) == 0.0


def test_measuring_builds_no_graph():
    gradient = torch.ones(3, requires_grad=True) * 2
    measured = measure([gradient])
    assert not measured.norms.requires_grad
    assert not measured.total_norm.requires_grad


@pytest.mark.parametrize("name", GALLERY)
def test_norms_on_every_model(name):
    case = build(name)
    backward(case)
    gradients = [p.grad for p in case.model.parameters() if p.grad is not None]
    expected = [reference(g) for g in gradients]
    np.testing.assert_allclose(measure(gradients).norms.double().numpy(), expected, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e30), st.integers(0, 4)), max_size=12))
def test_per_layer_adds_squares(pairs):
    norms, rows = np.array([n for n, _ in pairs]), [r for _, r in pairs]
    norm, has_grad = per_layer(norms, rows, layers=5)
    for layer in range(5):
        mine = [n for n, r in pairs if r == layer]
        assert norm[layer] == pytest.approx(np.linalg.norm(mine), rel=1e-12, abs=1e-150)
        assert has_grad[layer] == bool(mine)


def test_per_layer_keeps_nan_and_inf_in_their_layer():
    norm, _ = per_layer(np.array([1.0, NAN, INF, 2.0]), [0, 1, 2, 0], layers=3)
    np.testing.assert_allclose(norm, [5**0.5, NAN, INF])


def test_host_copy_is_float64_and_does_not_follow_the_vector():
    vector = torch.tensor([1.0, NAN, 1e-30])
    copy = HostCopy(vector)
    assert copy.ready()
    assert copy.numpy().dtype == np.float64
    np.testing.assert_array_equal(copy.numpy(), vector.double().numpy())


def gradients_of(*tensors: torch.Tensor, rows: list[int] | None = None) -> list[Gradient]:
    return [
        Gradient(torch.full_like(t.to_dense(), 2.0), t, row) for t, row in zip(tensors, rows or range(len(tensors)))
    ]


def test_sampled_stats_against_numpy():
    a, b, c = normal(50, 3) * 1e-3, normal(20), normal(9)
    a[:10] = 0.0
    b[:3] = torch.tensor([NAN, INF, -INF])
    found = sampled_stats(gradients_of(a, b, c, rows=[0, 2, 0]), layers=4)
    first = np.concatenate([a.numpy().reshape(-1), c.numpy()])
    finite = b.numpy()[3:]
    np.testing.assert_allclose(found.max_abs, [np.abs(first).max(), 0, np.abs(finite).max(), 0])
    np.testing.assert_allclose(found.zero_fraction, [(first == 0).mean(), 0, 0, 0])
    assert found.nonfinite.tolist() == [0, 0, 3, 0]
    np.testing.assert_allclose(found.param_norm, [2 * 159**0.5, 0, 2 * 20**0.5, 0], rtol=1e-6)
    assert found.histogram.shape == (4, len(HISTOGRAM_EDGES) - 1)
    assert found.histogram.sum(axis=1).tolist() == [129, 0, 17, 0]


@pytest.mark.parametrize(
    ("gradient", "zero_fraction"),
    [
        (sparse(1, 4, 1), 0.8),
        (sparse(), 1.0),
        (torch.tensor([3 + 4j, 0j]), 0.5),
        (torch.tensor([3 + 0j, 0j]), 0.75),
        (torch.zeros(0, 2), 0.0),
        (torch.tensor(0.0), 1.0),
        (torch.tensor([-0.0, 1e-45, 1.0, 2.0]), 0.25),
        (torch.tensor([0.0, 1e-300], dtype=torch.float64), 0.5),
        (torch.tensor([0.0, 6e-8, 1.0, 1.0], dtype=torch.float16), 0.25),
        (torch.tensor([0.0, 1.0]).expand(3, 2), 0.5),
    ],
)
def test_zeros_of_hostile_gradients(gradient, zero_fraction):
    assert sampled_stats(gradients_of(gradient), layers=1).zero_fraction.tolist() == pytest.approx([zero_fraction])


@pytest.mark.parametrize("name", GALLERY)
def test_sampled_stats_on_every_model(name):
    case = build(name)
    table = LayerTable(case.model, granularity="parameter")
    backward(case)
    found = sampled_stats(table.collect(), len(table.names))
    for parameter, gradient, row in table.collect():
        values = as_float64(gradient).reshape(-1)
        parts = np.abs(np.concatenate([values.real, values.imag]) if np.iscomplexobj(values) else values)
        assert found.max_abs[row] == pytest.approx(parts.max(initial=0.0), rel=1e-6)
        assert found.zero_fraction[row] == pytest.approx(np.mean(parts == 0) if len(parts) else 0.0)
        assert found.param_norm[row] == pytest.approx(reference(parameter), rel=1e-6)
        assert found.histogram[row].sum() == np.count_nonzero(parts)


def test_element_stats_and_real_values_of_a_complex_gradient():
    values = real_values(torch.tensor([3 + 4j]))
    assert values.tolist() == [[3.0, 4.0]]
    found = element_stats(values)
    assert (found.counts.shape, found.numel, found.max_abs) == ((BINS,), 2, 4.0)


def moved(*parameters: torch.Tensor, by: float, rows: list[int] | None = None) -> tuple[np.ndarray, list[float]]:
    """The update ratios measured when noise of relative size ``by`` is added, and the true ones."""
    named = [nn.Parameter(p) for p in parameters]
    rows = rows or list(range(len(named)))
    sample = ParameterSample([Gradient(p, torch.ones_like(p), row) for p, row in zip(named, rows)], max(rows) + 1)
    before = [p.detach().clone() for p in named]
    changed, size = np.zeros(max(rows) + 1), np.zeros(max(rows) + 1)
    with torch.no_grad():
        for i, (p, row) in enumerate(zip(named, rows)):
            p += by * torch.randn(p.shape, generator=torch.Generator().manual_seed(i + 100), dtype=p.dtype)
            changed[row] += reference(p - before[i]) ** 2
            size[row] += reference(before[i]) ** 2
    return sample.update_ratio(), np.sqrt(changed / size).tolist()


def test_update_ratio_is_exact_for_small_parameters():
    measured, true = moved(normal(20, 30), normal(7), torch.view_as_complex(normal(9, 2)), by=1e-3)
    assert measured.tolist() == pytest.approx(true, rel=1e-4)


def test_update_ratio_of_parameters_of_one_layer():
    weight = normal(400, 300) * 0.1
    measured, true = moved(weight, normal(300), torch.view_as_complex(normal(3, 2)), by=1e-3, rows=[0, 0, 0])
    assert measured.tolist() == pytest.approx(true, rel=0.05)


def test_update_ratio_of_large_parameters_is_an_estimate():
    measured, true = moved(normal(700, 500), normal(512, 512), normal(200_003), by=1e-2)
    assert measured.tolist() == pytest.approx(true, rel=0.1)


def test_the_sample_of_a_parameter_meets_every_column():
    parameter = nn.Parameter(torch.ones(1024, 1024))
    sample = ParameterSample([Gradient(parameter, torch.ones(1024, 1024), 0)], 1)
    with torch.no_grad():
        parameter[:, 0] += 1.0
    assert sample.update_ratio().tolist() == pytest.approx([1 / 32], rel=0.1)


def test_update_ratio_is_unknown_where_it_cannot_be_known():
    kept, zero, replaced = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
    sample = ParameterSample([Gradient(p, torch.ones(3), row) for row, p in enumerate([kept, zero, replaced])], 4)
    with torch.no_grad():
        kept += 0.5
        zero += 0.5
    del replaced
    np.testing.assert_allclose(sample.update_ratio(), [0.5, NAN, NAN, NAN])


def test_update_ratio_of_a_step_that_did_not_happen_is_zero():
    parameter = nn.Parameter(normal(5))
    assert ParameterSample([Gradient(parameter, torch.ones(5), 0)], 1).update_ratio().tolist() == [0.0]
