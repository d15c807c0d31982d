"""PerLayer against NumPy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradwatch.clipping import PerLayer
from gradwatch.stats import Measured, measure
from tests.clipping.test_every_policy import copies, gradients_of
from tests.models import as_float64
from tests.tensors import INF, NAN


def named(gradients, names) -> Measured:
    measured = measure(gradients)
    return Measured(measured.norms, measured.total_norm, names=names)


def norms_by_layer(gradients, layers) -> np.ndarray:
    of_each = np.array([np.linalg.norm(as_float64(g).reshape(-1)) for g in gradients])
    return np.sqrt(np.bincount(layers, of_each**2))


@settings(max_examples=100, deadline=None)
@given(
    layers=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    limit=st.floats(0.1, 10),
    seed=st.integers(0, 2**31),
)
def test_each_layer_is_at_most_the_limit_and_keeps_its_direction(layers, dtype, limit, seed):
    gradients = gradients_of([(3, i + 1) for i in range(len(layers))], dtype, 0, seed)
    before = copies(gradients)
    names = [f"block.{layer}.p{i}" for i, layer in enumerate(layers)]
    record = PerLayer(limit).clip_(gradients, named(gradients, names))
    eps = float(torch.finfo(dtype).eps)
    norms = norms_by_layer(before, layers)
    for layer, old, new in zip(layers, before, gradients):
        factor = min(1.0, limit / norms[layer])
        np.testing.assert_allclose(as_float64(new), factor * as_float64(old), rtol=4 * eps + 1e-6)
        assert factor < 1 or torch.equal(old, new)
    assert np.all(norms_by_layer(gradients, layers) <= limit * (1 + 4 * eps) + 1e-6)
    present = norms[np.unique(layers)]
    assert float(record.clipped) == pytest.approx(np.mean(present > limit))
    assert float(record.norm_after) == pytest.approx(np.linalg.norm(np.minimum(present, limit)), rel=1e-6)


def test_the_record_by_hand():
    gradients = [torch.tensor([3.0]), torch.tensor([4.0]), torch.tensor([0.5])]
    record = PerLayer(2.5).clip_(gradients, named(gradients, ["a.weight", "a.bias", "b.weight"]))
    assert [g.item() for g in gradients] == pytest.approx([1.5, 2.0, 0.5])
    assert (record.policy, record.threshold, float(record.clipped)) == ("per_layer", 2.5, 0.5)
    assert float(record.norm_before) == pytest.approx(25.25**0.5)
    assert float(record.norm_after) == pytest.approx(6.5**0.5)
    assert np.isnan(record.coefficient)


def test_one_layer_that_explodes_leaves_the_others_alone():
    gradients = [torch.tensor([1e8]), torch.tensor([0.5])]
    PerLayer(1.0).clip_(gradients, named(gradients, ["a.weight", "b.weight"]))
    assert [g.item() for g in gradients] == [pytest.approx(1.0), 0.5]


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_layer_that_is_not_finite_is_left_alone_and_the_others_clipped(bad):
    gradients = [torch.tensor([bad, 7.0]), torch.tensor([2.0]), torch.tensor([4.0])]
    PerLayer(1.0).clip_(gradients, named(gradients, ["a.weight", "a.bias", "b.weight"]))
    np.testing.assert_array_equal(gradients[0].numpy(), np.array([bad, 7.0], np.float32))
    assert [gradients[1].item(), gradients[2].item()] == [2.0, 1.0]


def test_parametrizations_belong_to_their_layer():
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    names = [f"fc.parametrizations.weight.original{i}" for i in (0, 1)]
    PerLayer(1.0).clip_(gradients, named(gradients, names))
    assert [g.item() for g in gradients] == pytest.approx([0.6, 0.8])


def test_without_names_each_gradient_is_a_layer():
    gradients = [torch.tensor([3.0]), torch.tensor([0.4])]
    PerLayer(1.0).clip_(gradients, measure(gradients))
    assert [g.item() for g in gradients] == pytest.approx([1.0, 0.4])


def test_what_is_not_clipped_is_not_touched():
    gradients = [torch.tensor([3.0]), torch.tensor([0.4])]
    versions = [g._version for g in gradients]
    PerLayer(1.0).clip_(gradients, named(gradients, ["a.weight", "b.weight"]))
    assert [g._version - v for g, v in zip(gradients, versions)] == [1, 0]


def test_elsewhere_than_on_the_cpu_nothing_waits():
    norms = torch.ones(2, device="meta")
    stats = Measured(norms, torch.linalg.vector_norm(norms), names=("a.weight", "b.weight"))
    record = PerLayer(1.0).clip_([torch.ones(3, device="meta")] * 2, stats)
    assert record.clipped.is_meta


def test_of_a_sharded_model_the_norms_of_the_whole_count():
    part = torch.tensor([0.6])
    PerLayer(1.0).clip_([part], Measured(torch.tensor([6.0]), torch.tensor(6.0), sharded=True, names=["a.weight"]))
    assert part.item() == pytest.approx(0.1)


def test_a_flat_parameter_of_many_layers_is_refused():
    flat = nn.Parameter(torch.zeros(3))
    flat._fsdp_flattened = True
    with pytest.raises(ValueError, match=r"PerLayer: 0._flat_param holds all layers .* model.clip_grad_norm_"):
        PerLayer(1.0).check_parameters({"0._flat_param": flat})
    PerLayer(1.0).check_parameters({"0.weight": flat})  # with use_orig_params=True it is in layers
