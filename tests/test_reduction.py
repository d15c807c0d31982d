"""The vector of one step, its sum done here: what each rank of a larger world adds, and what all then know."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gradwatch.reduction import Parts, Reduction
from gradwatch.sampled import COLUMNS, Elements, Moved
from gradwatch.verdict import name_ranks

SLOTS = 3


@pytest.fixture
def world(monkeypatch):
    """``world(n, copies)`` gives the shardings of n ranks; all_reduce keeps the vectors for :func:`total`."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda vector, group: None)

    def make(ranks: int, copies: float) -> list[SimpleNamespace]:
        common = {
            "rows": np.array([0, 0, 1]),
            "ndims": np.array([2, 1, 2]),
            "groups": [None],
            "device": torch.device("cpu"),
            "size": ranks,
        }
        share = {"copies": np.full(SLOTS, copies), "global_ranks": tuple}
        share |= {"summed": {}, "summed_numel": 0, "compare": lambda squares, fourths: None}
        return [SimpleNamespace(**common, **share, rank=rank) for rank in range(ranks)]

    return make


def parts(slots: list[int], weights: list[float]) -> Parts:
    found = Parts()
    found.slots, found.weights = slots, weights
    return found


def total(reductions: list[Reduction]) -> torch.Tensor:
    return torch.stack([reduction.run().clone() for reduction in reductions]).sum(dim=0)


def test_shards_add_up(world):
    reductions = [Reduction(sharding, 0, False) for sharding in world(2, copies=0.5)]
    reductions[0].add_norms(parts([0, 1], [1.0, 1.0]), torch.tensor([3.0, 1.0]))
    reductions[1].add_norms(parts([0], [1.0]), torch.tensor([4.0]))
    vector = total(reductions)
    norms, rows, ndims, elements, moved, ranks = reductions[0].read(vector.numpy())
    assert norms.tolist() == [5.0, 1.0]
    assert (rows, ndims, elements, moved, ranks) == ([0, 0], [2, 1], None, None, ())
    measured = reductions[1].measured(vector, [0])
    assert measured.norms.tolist() == [5.0]
    assert float(measured.total_norm) == pytest.approx(math.sqrt(26.0), rel=1e-15)
    assert measured.sharded


def test_replicas_count_once(world):
    """Two groups of two that hold a copy each; in it a shard counts whole and a replica by half."""
    reductions = [Reduction(sharding, 0, False) for sharding in world(4, copies=0.5)]
    for rank, reduction in enumerate(reductions):
        reduction.add_norms(parts([0, 2], [1.0, 0.5]), torch.tensor([3.0 if rank % 2 else 4.0, 7.0]))
    norms, rows, *_ = reductions[0].read(total(reductions).numpy())
    np.testing.assert_allclose(norms, [5.0, 7.0], rtol=1e-15)
    assert rows == [0, 1]


def test_a_rank_that_failed_makes_the_step_unknown_to_all(world):
    reductions = [Reduction(sharding, 0, False) for sharding in world(3, copies=1 / 3)]
    for reduction in reductions[::2]:
        reduction.add_norms(parts([0], [1.0]), torch.ones(1))
    reductions[1].fail()
    vector = total(reductions)
    measured = reductions[0].measured(vector, [0])
    assert torch.isnan(measured.norms).all()
    assert torch.isnan(measured.total_norm)
    with pytest.raises(RuntimeError, match="rank 1 could not measure the gradients"):
        reductions[0].read(vector.numpy())


def test_the_ranks_that_hold_what_is_not_finite_are_named(world):
    reductions = [Reduction(sharding, 0, False) for sharding in world(3, copies=1 / 3)]
    for reduction, value in zip(reductions, (math.inf, 1.0, math.nan)):
        reduction.add_norms(parts([0, 1], [1.0, 1.0]), torch.tensor([value, 2.0]))
    norms, *_, ranks = reductions[1].read(total(reductions).numpy())
    assert ranks == (0, 2)
    assert math.isnan(norms[0])
    assert norms[1] == pytest.approx(math.sqrt(12.0))
    assert name_ranks(ranks) == "ranks 0, 2"


def test_no_gradient_anywhere(world):
    reductions = [Reduction(sharding, 0, False) for sharding in world(2, copies=0.5)]
    for reduction in reductions:
        reduction.add_norms(parts([], []), torch.zeros(0))
    vector = total(reductions)
    assert reductions[0].read(vector.numpy())[0].tolist() == []
    assert float(reductions[0].measured(vector, []).total_norm) == 0.0


def test_sampled_statistics_add_up_and_the_largest_is_kept(world):
    reductions = [Reduction(sharding, COLUMNS, True) for sharding in world(2, copies=0.5)]
    for rank, reduction in enumerate(reductions):
        sums = np.full((1, COLUMNS), 1.0 + rank)
        reduction.add_norms(parts([1], [1.0]), torch.ones(1))
        reduction.add_elements(Elements([0], [1], sums, np.array([5.0 - rank])))
        reduction.add_moved(Moved([1], [2], np.array([[1.0, 50.0]])))
    _, _, _, elements, moved, _ = reductions[0].read(total(reductions).numpy())
    assert elements.sums[1].tolist() == [3.0] * COLUMNS
    assert elements.max_abs.tolist() == [0.0, 5.0, 0.0]
    np.testing.assert_allclose(moved.update_ratio(layers=2), [math.nan, math.sqrt(2 / 100)])


def test_every_rank_sends_as_much_whatever_it_has(world):
    lengths = []
    for sharding in world(2, copies=0.5):
        reduction = Reduction(sharding, COLUMNS, True)
        if sharding.rank:
            reduction.fail()
        lengths.append(len(reduction.run()))
    assert lengths[0] == lengths[1]
