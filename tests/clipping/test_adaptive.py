"""AGC against its published equation in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradwatch.clipping import AGC
from gradwatch.stats import Measured, measure
from tests.clipping.test_every_policy import copies, same_bits
from tests.models import GALLERY, as_float64, backward, build
from tests.tensors import INF, NAN, normal


def stats_of(gradients, parameters, names=None, sharded=False) -> Measured:
    measured = measure(gradients)
    names = [f"{i}.weight" for i in range(len(gradients))] if names is None else names
    return Measured(measured.norms, measured.total_norm, sharded, names=names, parameters=parameters)


def unit_norms(values: np.ndarray) -> np.ndarray:
    """Of what each index of dimension 0 selects, to be broadcast; of a vector of all of it."""
    if values.ndim < 2:
        return np.linalg.norm(values.reshape(-1))
    return np.sqrt(np.sum(np.abs(values) ** 2, axis=tuple(range(1, values.ndim)), keepdims=True))


def published(gradient: np.ndarray, weight: np.ndarray, clip_factor: float, eps: float) -> np.ndarray:
    """Equation 3 of the paper, with the norm of the weights at least eps: what adaptive_clip_grad of timm computes."""
    norm, largest = unit_norms(gradient), clip_factor * np.maximum(unit_norms(weight), eps)
    with np.errstate(all="ignore"):
        return np.where(norm > largest, gradient * (largest / norm), gradient)


SHAPES = st.lists(st.integers(1, 6), max_size=4).map(tuple)


@settings(max_examples=200, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    clip_factor=st.floats(0.001, 1),
    eps=st.sampled_from([1e-3, 1.0]),
    scale=st.floats(-2, 2),
    seed=st.integers(0, 2**31),
)
def test_is_as_published_over_random_gradients(shapes, dtype, clip_factor, eps, scale, seed):
    gradients = [(normal(*shape, seed=seed + i) * 10**scale).to(dtype) for i, shape in enumerate(shapes)]
    weights = [normal(*shape, seed=seed - 1 - i).to(dtype) for i, shape in enumerate(shapes)]
    before = [as_float64(g).copy() for g in gradients]
    record = AGC(clip_factor, eps).clip_(gradients, stats_of(gradients, weights))
    clipped, units = 0, 0
    for old, new, weight in zip(before, gradients, weights):
        expected = published(old, as_float64(weight), clip_factor, eps)
        tiny = float(torch.finfo(dtype).tiny) if dtype is torch.float16 else 0.0  # below, float16 has fewer digits
        np.testing.assert_allclose(as_float64(new), expected, rtol=4 * float(torch.finfo(dtype).eps) + 2e-6, atol=tiny)
        clipped += np.sum(unit_norms(old) > clip_factor * np.maximum(unit_norms(as_float64(weight)), eps))
        units += np.size(unit_norms(old))
    assert float(record.clipped) == pytest.approx(clipped / units)
    resolution = max(1e-6, 4 * float(torch.finfo(dtype).eps))
    assert float(record.norm_after) == pytest.approx(float(measure(gradients).total_norm), rel=resolution, abs=1e-6)


@pytest.mark.parametrize("name", sorted(set(GALLERY) - {"lazy_layers"}))
def test_clips_every_model_as_published(name):
    case = build(name)
    backward(case, scale=10.0)
    parameters = [p for p in case.model.parameters() if p.grad is not None]
    gradients = [p.grad for p in parameters]
    before = [as_float64(g).copy() for g in gradients]
    AGC(0.02).clip_(gradients, stats_of(gradients, parameters))
    for old, new, p in zip(before, gradients, parameters):
        expected = published(old, as_float64(p.detach()), 0.02, 1e-3)
        rtol, atol = {1: (0.13, 2e-3), 2: (1e-2, 1e-7)}.get(p.dtype.itemsize, (1e-5, 1e-12))  # float8 has 3 bits
        np.testing.assert_allclose(as_float64(new), expected, rtol=rtol, atol=atol)


def test_by_hand():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    gradient = torch.tensor([[0.0, 1.0], [0.6, 0.8], [0.0, 0.05]])
    bias, bias_gradient = torch.tensor([0.6, 0.8, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    record = AGC(0.1, eps=0.01).clip_([gradient, bias_gradient], stats_of([gradient, bias_gradient], [weight, bias]))
    np.testing.assert_allclose(gradient.numpy(), [[0, 0.5], [0.0006, 0.0008], [0, 0.05]], rtol=1e-5)
    np.testing.assert_allclose(bias_gradient.numpy(), [0, 0.1, 0], rtol=1e-5)
    assert (record.policy, record.threshold, float(record.clipped)) == ("agc", 0.1, 0.75)
    assert math.isnan(record.coefficient)


def test_what_starts_at_zero_can_leave_it():
    """In composer's, whose unit norms have no floor, a bias of zero stays zero."""
    bias = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([bias], lr=1.0)
    for _ in range(20):
        bias.grad = -torch.ones(4)
        AGC(0.1).clip_([bias.grad], stats_of([bias.grad], [bias]))
        optimizer.step()
    assert float(bias.detach().norm()) == pytest.approx(1e-3 * 1.1**10, rel=1e-4)  # 10 steps to eps


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_unit_that_is_not_finite_is_left_alone_and_the_others_clipped(bad):
    weight, gradient = torch.ones(2, 4), torch.tensor([[bad, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0]])
    AGC(0.5).clip_([gradient], stats_of([gradient], [weight]))
    np.testing.assert_array_equal(gradient.numpy(), np.array([[bad, 1, 1, 1], [1, 0, 0, 0]], np.float32))


def test_weights_that_are_not_finite_limit_nothing_or_everything_to_themselves():
    weight, gradient = torch.tensor([[NAN, 1.0], [INF, 1.0]]), torch.ones(2, 2)
    AGC(0.5).clip_([gradient], stats_of([gradient], [weight]))
    assert gradient.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_squares_that_overflow_float32():
    weight, gradient = torch.ones(1, 2), torch.full((1, 2), 1e25)
    AGC(0.5).clip_([gradient], stats_of([gradient], [weight]))
    np.testing.assert_allclose(gradient.numpy(), [[0.5, 0.5]], rtol=1e-5)


def test_rows_of_an_embedding_are_clipped_by_their_own_weights():
    weight = torch.tensor([[1.0, 0.0], [10.0, 0.0], [100.0, 0.0]])
    indices, values = torch.tensor([[2, 0, 2]]), torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0]])
    gradient = torch.sparse_coo_tensor(indices, values, (3, 2), check_invariants=True)
    AGC(0.01).clip_([gradient], stats_of([gradient], [weight]))
    np.testing.assert_allclose(gradient.to_dense().numpy(), [[0.01, 0], [0, 0], [1.0, 0]], rtol=1e-5)


def test_a_gradient_that_is_sparse_in_two_dimensions_is_refused():
    gradient = torch.sparse_coo_tensor([[0], [1]], torch.tensor([3.0]), (2, 2), check_invariants=True)
    with pytest.raises(ValueError, match=r"AGC: a sparse gradient must be sparse in dimension 0 alone, .*, got 2"):
        AGC(0.01).clip_([gradient], stats_of([gradient], [torch.ones(2, 2)]))


class TestExclude:
    def test_leaves_out_parameters_and_layers(self):
        weights = [torch.ones(1, 4) for _ in range(3)]
        gradients = [torch.ones(1, 4) for _ in range(3)]
        names = ["body.weight", "body.bias", "head.weight"]
        record = AGC(0.5, exclude=("head", "*.bias")).clip_(gradients, stats_of(gradients, weights, names))
        assert [float(g.norm()) for g in gradients] == pytest.approx([1.0, 2.0, 2.0])
        assert float(record.clipped) == 1.0
        assert float(record.norm_after) == pytest.approx(3.0)

    def test_all_left_out(self):
        gradients = [torch.ones(3)]
        record = AGC(0.01, exclude="*").clip_(gradients, stats_of(gradients, [torch.ones(3)]))
        assert (record.clipped, gradients[0].tolist()) == (0.0, [1.0] * 3)

    def test_a_pattern_that_matches_nothing(self):
        with pytest.raises(ValueError, match=r"AGC: exclude: the pattern 'haed' matches no layer; .*head"):
            AGC(exclude="haed").check_parameters({"head.weight": torch.zeros(1)})
        gradients = [torch.ones(3)]
        with pytest.raises(ValueError, match=r"AGC: exclude: the pattern 'haed' matches no layer"):
            AGC(exclude="haed").clip_(gradients, stats_of(gradients, [torch.ones(3)]))

    def test_names_are_needed_for_it(self):
        gradients = [torch.ones(3)]
        with pytest.raises(
            ValueError, match=r"AGC: exclude goes by the names of parameters, and Measured.names has none"
        ):
            AGC(exclude="head").clip_(gradients, stats_of(gradients, [torch.ones(3)], names=()))

    @pytest.mark.parametrize("exclude", [3, [None]])
    def test_what_is_no_pattern(self, exclude):
        with pytest.raises(TypeError, match=r"AGC: exclude takes patterns"):
            AGC(exclude=exclude)


class Sharded(nn.Parameter):
    """As much of a DTensor as is looked at."""

    def __new__(cls, values, *placements):
        self = super().__new__(cls, values)
        self.placements = placements
        self.device_mesh = torch.zeros([2] * len(placements))  # of 2 ranks in each dimension
        return self


class Placement:
    def __init__(self, dim: int | None) -> None:
        self.dim = dim

    def is_replicate(self) -> bool:
        return self.dim is None

    def __repr__(self) -> str:
        return f"Shard({self.dim})"


class TestSharded:
    @pytest.mark.parametrize("dims", [[1], [None, 1]])
    def test_units_that_are_spread_over_ranks_are_refused(self, dims):
        p = Sharded(torch.zeros(4, 2), *map(Placement, dims))
        with pytest.raises(ValueError, match=r"AGC: a.weight, of shape \(4, 2\), is sharded as Shard\(1\), so that no"):
            AGC().check_parameters({"a.weight": p})
        AGC(exclude="a").check_parameters({"a.weight": p})

    def test_vectors_are_too(self):
        with pytest.raises(ValueError, match=r"AGC: a.bias, of shape .* leave it out by exclude="):
            AGC().check_parameters({"a.bias": Sharded(torch.zeros(4), Placement(0))})

    def test_whole_units_are_not(self):
        AGC().check_parameters({"a.weight": Sharded(torch.zeros(4, 2), Placement(0), Placement(None))})

    def test_pieces_of_a_flat_parameter_are_refused(self):
        p = nn.Parameter(torch.zeros(4))
        p._fsdp_flattened = True
        with pytest.raises(ValueError, match=r"AGC: a.weight is cut to pieces by Fully.* model.clip_grad_norm_"):
            AGC().check_parameters({"a.weight": p})

    def test_what_this_rank_does_not_hold_is_passed_over_and_what_others_clipped_is_not_known(self):
        gradients = [torch.zeros(0), torch.full((1, 4), 2.0)]
        weights = [torch.ones(0, 4), torch.ones(1, 4)]
        record = AGC(0.5).clip_(gradients, stats_of(gradients, weights, sharded=True))
        np.testing.assert_allclose(gradients[1].numpy(), np.full((1, 4), 0.5), rtol=1e-6)
        assert math.isnan(record.clipped)
        assert math.isnan(record.norm_after)
        held = [torch.zeros(0)]
        assert AGC(0.5).clip_(held, stats_of(held, [torch.ones(0, 4)], sharded=True)).policy == "agc"


def test_without_parameters_it_says_so():
    with pytest.raises(ValueError, match=r"AGC clips by the norms of the parameters, and Measured.parameters has none"):
        AGC().clip_([torch.ones(2)], measure([torch.ones(2)]))


def test_elsewhere_than_on_the_cpu_nothing_waits():
    gradients = [torch.ones(3, 2, device="meta"), torch.ones(3, device="meta")]
    norms = torch.ones(2, device="meta")
    stats = Measured(norms, torch.linalg.vector_norm(norms), names=("a.weight", "a.bias"), parameters=gradients)
    assert AGC().clip_(gradients, stats).clipped.is_meta


def test_below_the_limit_nothing_is_touched():
    gradients = [torch.full((2, 3), 1e-4), torch.zeros(3)]
    before, versions = copies(gradients), [g._version for g in gradients]
    record = AGC(0.01).clip_(gradients, stats_of(gradients, [torch.ones(2, 3), torch.ones(3)]))
    assert same_bits(gradients, before)
    assert [g._version for g in gradients] == versions
    assert (record.clipped, record.coefficient) == (0.0, 1.0)


@pytest.mark.parametrize("argument", ["clip_factor", "eps"])
def test_refuses_bad_arguments(argument):
    with pytest.raises(ValueError, match=f"AGC: {argument} must be above 0, got 0"):
        AGC(**{argument: 0})
    with pytest.raises(TypeError, match=f"AGC: {argument} must be a number, got '1'"):
        AGC(**{argument: "1"})
