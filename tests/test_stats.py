"""Norms against NumPy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradwatch import stats
from gradwatch.stats import ROW, SHORT, TOGETHER, measure, per_layer
from tests.models import GALLERY, as_float64, backward, build
from tests.tensors import INF, NAN, normal, reference, sparse

LONG = 1 << 16
"""Elements, far above a row."""


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
    "large": normal(LONG + 17),
    "large transposed": normal(300, 301).t(),
    "large channels_last": normal(40, 64, 6, 6).to(memory_format=torch.channels_last),
    "large with gaps": normal(300, 602)[:, ::2],
    "large expanded": normal(300, 1).expand(300, 300),
    "large complex": torch.view_as_complex(normal(LONG, 2)),
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
@pytest.mark.parametrize("size", [1, SHORT, LONG - 1, LONG, 20 * LONG + 3])
def test_norm_where_squares_leave_the_range_of_float32(size, scale):
    gradient = torch.full((size,), scale)
    assert float(measure([gradient]).norms[0]) == pytest.approx(float(gradient[0]) * size**0.5, rel=1e-6)


def test_norm_of_a_tensor_where_that_of_torch_is_off():
    gradient = torch.full((30_000_000,), 0.1)
    true = float(gradient[0]) * 30_000_000**0.5
    assert float(measure([gradient]).norms[0]) == pytest.approx(true, rel=1e-6)
    assert abs(float(torch.linalg.vector_norm(gradient)) / true - 1) > 1e-5  # else SHORT has become needless


@pytest.mark.parametrize("size", [1, 10, LONG + 5])
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
    shapes=st.lists(st.lists(st.integers(0, 50), min_size=0, max_size=3), min_size=1, max_size=40),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 2**32),
)
def test_short_and_long_and_empty_gradients_together(shapes, exponent, seed):
    gradients = [normal(*shape, seed=seed + i) * 10.0**exponent for i, shape in enumerate(shapes)]
    measured = measure(gradients)
    expected = [reference(g) for g in gradients]
    np.testing.assert_allclose(measured.norms.numpy(), expected, rtol=1e-6)
    assert float(measured.total_norm) == pytest.approx(np.linalg.norm(expected), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_many_short_gradients_are_measured_in_turns(dtype):
    sizes = [ROW, 0, 1, TOGETHER // 3, ROW - 1, ROW + 1] * 30 + [ROW] * 40
    gradients = [normal(size, seed=i).to(dtype) for i, size in enumerate(sizes)]
    np.testing.assert_allclose(measure(gradients).norms.numpy(), [reference(g) for g in gradients], rtol=1e-6)


@pytest.mark.parametrize("many", [1, 1000], ids=["together", "one by one"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_short_gradients_are_as_exact_together_as_one_by_one(dtype, many, monkeypatch):
    monkeypatch.setattr(stats, "MANY", many)
    stats._plan.cache_clear()
    values = [normal(5, 7), normal(30, 40).t(), normal(), normal(0), torch.full((ROW,), 0.1), torch.zeros(3)]
    gradients = [value.to(dtype) for value in [*values, normal(9)[::2], normal(ROW + 1)]]
    gradients += (
        [] if dtype is torch.float16 else [torch.full((9,), 1e-30, dtype=dtype), torch.full((2,), 1e25).to(dtype)]
    )
    found = measure(gradients).norms.tolist()
    stats._plan.cache_clear()
    assert found == pytest.approx([reference(gradient) for gradient in gradients], rel=1e-6)


def test_norm_of_a_gradient_that_requires_one():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(x.pow(2).sum(), x, create_graph=True)
    assert gradient.requires_grad
    assert float(measure([gradient]).norms[0]) == pytest.approx(20**0.5)


def test_no_gradients_have_the_norm_zero():
    measured = measure([])
    assert measured.norms.shape == (0,)
    assert float(measured.total_norm) == 0.0


@pytest.mark.parametrize("scale", [2.0, 1e-30], ids=["normal", "measured again in float64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_measuring_builds_no_graph(dtype, scale):
    gradients = [torch.ones(size, dtype=dtype, requires_grad=True) * scale for size in (3, LONG)]
    measured = measure(gradients)
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


def test_what_becomes_of_has_grad_is_not_seen_at_the_next_step():
    for _ in range(2):
        _, has_grad = per_layer(np.ones(2), [0, 2], layers=3)
        assert has_grad.tolist() == [True, False, True]
        has_grad[:] = False


def test_norm_of_a_gradient_with_the_negative_bit():
    gradient = torch.view_as_complex(normal(2000, 2)).conj().imag
    assert gradient.is_neg()
    assert float(measure([gradient]).norms[0]) == pytest.approx(reference(gradient.resolve_neg()), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e20])
def test_short_gradients_by_torch(scale):
    """Its norms to the last bit, beside ours, which are right at any scale."""
    gradients = [scale * normal(n, seed=n) for n in (1, 3, 17, SHORT)]
    found = measure(gradients, by_torch=True)
    assert found.by_torch is not None
    assert torch.equal(found.by_torch, torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    exact = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients])
    torch.testing.assert_close(found.norms.double(), exact, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(found.total_norm.double(), exact.norm(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    "gradients", [[normal(SHORT + 1)], [normal(3).double()], [normal(3), normal(3).half()], [normal(3).to_sparse()], []]
)
def test_others_are_not_taken_by_torch(gradients):
    found, plain = measure(gradients, by_torch=True), measure(gradients)
    assert found.by_torch is None
    assert torch.equal(found.norms, plain.norms)
