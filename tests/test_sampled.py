"""Sampled statistics and update ratios against NumPy in float64."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gradwatch.histograms import BINS, element_stats
from gradwatch.layers import Gradients, LayerTable
from gradwatch.sampled import Moved, ParameterSample, element_sums, in_float16
from gradwatch.stats import real_values
from gradwatch.tags import HISTOGRAM_EDGES
from tests.models import GALLERY, as_float64, backward, build
from tests.tensors import INF, NAN, normal, reference, sparse


def gradients_of(*tensors: torch.Tensor, rows: list[int] | None = None) -> Gradients:
    return Gradients(
        [torch.full_like(t.to_dense(), 2.0) for t in tensors], list(tensors), rows or [*range(len(tensors))]
    )


def about_to_change(*parameters: torch.Tensor, rows: list[int] | None = None) -> ParameterSample:
    rows = rows or [*range(len(parameters))]
    return ParameterSample(Gradients(list(parameters), [torch.ones_like(p) for p in parameters], rows))


def sampled_stats(gradients: Gradients, layers: int) -> SimpleNamespace:
    return SimpleNamespace(**element_sums(gradients).stats(layers))


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
    gradients = table.collect()
    found = sampled_stats(gradients, len(table.names))
    for parameter, gradient, row in zip(gradients.parameters, gradients.values, gradients.rows):
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
    sample = about_to_change(*named, rows=rows)
    before = [p.detach().clone() for p in named]
    changed, size = np.zeros(max(rows) + 1), np.zeros(max(rows) + 1)
    with torch.no_grad():
        for i, (p, row) in enumerate(zip(named, rows)):
            p += by * torch.randn(p.shape, generator=torch.Generator().manual_seed(i + 100), dtype=p.dtype)
            changed[row] += reference(p - before[i]) ** 2
            size[row] += reference(before[i]) ** 2
    return sample.moved().update_ratio(layers=max(rows) + 1), np.sqrt(changed / size).tolist()


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
    sample = about_to_change(parameter)
    with torch.no_grad():
        parameter[:, 0] += 1.0
    assert sample.moved().update_ratio(layers=1).tolist() == pytest.approx([1 / 32], rel=0.1)


def test_update_ratio_is_unknown_where_it_cannot_be_known():
    kept, zero, replaced = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
    sample = about_to_change(kept, zero, replaced)
    with torch.no_grad():
        kept += 0.5
        zero += 0.5
    del replaced
    np.testing.assert_allclose(sample.moved().update_ratio(layers=4), [0.5, NAN, NAN, NAN])


@pytest.mark.parametrize("sparse", [True, False])
def test_update_ratio_of_a_table_of_which_the_sample_met_no_row(sparse: bool) -> None:
    table = nn.Embedding(100_000, 4, sparse=sparse)
    table(torch.tensor([1])).sum().backward()
    sample = ParameterSample(Gradients([table.weight], [table.weight.grad], [0]))
    np.testing.assert_array_equal(sample.moved().update_ratio(layers=1), [NAN])
    with torch.no_grad():
        table.weight += 1.0  # as weight decay or momentum, which move all rows
    assert sample.moved().update_ratio(layers=1) > 0


def test_update_ratio_of_a_step_that_did_not_happen_is_zero():
    parameter = nn.Parameter(normal(5))
    assert about_to_change(parameter).moved().update_ratio(layers=1).tolist() == [0.0]


def test_elements_of_a_gradient_with_the_negative_bit():
    gradient = torch.view_as_complex(normal(2000, 2)).conj().imag
    found = element_stats(gradient)
    assert found.max_abs == float(gradient.resolve_neg().abs().max())
    assert found.counts.sum() == found.numel == 2000


# -- the precision, and all layers together ---------------------------------------------------------------------------


def gradients_in(dtype: torch.dtype | None, batches: int = 1, factor: float = 1.0) -> list[torch.Tensor]:
    """Of a network under autocast to ``dtype``."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    for _ in range(batches):
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            outputs = model(torch.randn(16, 32))
        (outputs.float().square().mean() * factor).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("factor", [1.0, 1e-3, 2.0**-10])
def test_gradients_made_in_float16_are_known_by_their_digits(factor):
    assert in_float16(gradients_in(torch.float16, factor=factor)) is True
    assert in_float16(gradients_in(torch.bfloat16, factor=factor)) is False
    assert in_float16(gradients_in(None, factor=factor)) is False


@pytest.mark.parametrize("scale", [2.0**4, 2.0**10])
def test_a_loss_scale_that_is_taken_out_changes_nothing(scale):
    assert in_float16([g / scale for g in gradients_in(torch.float16, factor=scale)]) is True


@pytest.mark.parametrize("batches", [2, 3, 4])
def test_sums_of_bfloat16_are_not_taken_for_float16(batches):
    assert in_float16(gradients_in(torch.bfloat16, batches)) is False


def test_what_does_not_tell_the_precision():
    assert in_float16([]) is None
    assert in_float16([torch.zeros(4, 4), torch.full((4, 4), NAN), torch.full((4, 4), INF)]) is None
    assert in_float16([torch.ones(4)]) is None  # vectors are sums
    assert in_float16([torch.zeros(4, 4, dtype=torch.float16)]) is True
    assert in_float16([torch.full((4, 4), 3e38), torch.randn(4, 400)]) is False


def test_all_layers_together_count_at_least_as_much_as_freshly_initialised():
    changed = Moved([0, 1, 2, 2], [], np.array([[4.0, 100.0], [9.0, 0.01], [0.0, 0.0], [1.0, 0.0]]))
    # Layer 1 has next to no weights, so it counts as its 16 outputs; layer 2 has none and is not known.
    assert changed.total_update(np.array([1.0, 16.0, 5.0])) == pytest.approx(((4 + 9) / (100 + 16)) ** 0.5)
    assert np.isnan(Moved([], [], np.zeros((0, 2))).total_update(np.ones(2)))


@pytest.mark.parametrize(
    ("change", "size", "broken"),
    [(0.0, 4.0, False), (NAN, 4.0, True), (INF, 4.0, True), (NAN, 0.0, True), (NAN, NAN, False), (NAN, INF, False)],
)
def test_a_step_that_makes_nan_of_what_was_none_has_broken_it(change: float, size: float, broken: bool) -> None:
    assert Moved([0, 1], [], np.array([[1.0, 1.0], [change, size]])).has_broken() is broken
    assert Moved([], [], np.zeros((0, 2))).has_broken() is False
