"""What each rank holds of a sharded tensor, in a world of one; tests/matrix has larger ones."""

import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

from gradwatch.faults import GradwatchWarning
from gradwatch.layers import LayerTable
from gradwatch.sharding import fsdp_parameters, is_flattened, is_sharded, local_part, rank, sharding_of


@pytest.fixture(autouse=True)
def world_of_one(tmp_path):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_plain_tensor_is_all_here():
    tensor = torch.ones(3)
    found = local_part(tensor)
    assert found.values is tensor
    assert found.weight == 1.0


@pytest.mark.parametrize("placement", [Shard(0), Replicate()])
def test_what_is_here_of_a_dtensor_is_the_same_memory(placement):
    tensor = distribute_tensor(torch.arange(4.0), init_device_mesh("cpu", (1,)), [placement])
    with torch.no_grad():
        local_part(tensor).values.mul_(2)
        assert tensor.full_tensor().tolist() == [0.0, 2.0, 4.0, 6.0]


def test_summands_are_summed_first():
    mesh = init_device_mesh("cpu", (1,))
    tensor = torch.distributed.tensor.DTensor.from_local(torch.ones(2), mesh, [Partial()])
    assert local_part(tensor).values.tolist() == [1.0, 1.0]


def test_a_plain_model_is_not_sharded():
    model = nn.Linear(2, 2)
    assert fsdp_parameters(model) == {}
    assert sharding_of([*model.parameters()], [0, 0], {}) is None
    assert LayerTable(model).sharding is None


def test_a_sharded_model_keeps_the_names_kinds_and_sizes_of_its_layers():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    plain = LayerTable(model).layers
    fully_shard(model[0])
    fully_shard(model)
    table = LayerTable(model)
    assert table.layers == plain
    assert table.sharding.rows.tolist() == [0, 0, 1, 1]
    assert table.sharding.copies.tolist() == [1.0] * 4


def test_sharding_after_the_table_was_made_is_followed():
    model = nn.Sequential(nn.Linear(3, 4))
    table = LayerTable(model)
    fully_shard(model)
    table.collect()
    assert table.sharding is not None


@pytest.mark.parametrize("whole", [True, False])
def test_fully_sharded_data_parallel_knows_the_sizes(whole):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    numels = [p.numel() for p in model.parameters()]
    strategy = ShardingStrategy.NO_SHARD if whole else ShardingStrategy.FULL_SHARD
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a world of one is nothing to shard over, says torch
        model = FullyShardedDataParallel(
            model, use_orig_params=True, device_id=torch.device("cpu"), sharding_strategy=strategy
        )
    found = fsdp_parameters(model)
    assert [found[id(p)].numel for p in model.parameters()] == numels
    assert {managed.ranks for managed in found.values()} == {1}
    assert [layer.name for layer in LayerTable(model).layers] == ["0", "1"]


def test_this_is_rank_zero():
    assert rank() == 0


def test_replicas_that_differ_are_told_of_once():
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    fully_shard(model[0])
    sharding = LayerTable(model).sharding
    means = np.ones(4)
    sharding.compare(means, means * [2, 2, 1, 1])  # what is sharded differs by design
    sharding.compare(means * np.nan, means)
    with pytest.warns(GradwatchWarning, match="1 parameters are not sharded, and their gradients differ"):
        sharding.compare(means, means * [1, 1, 1.01, 1])
    sharding.compare(means, means * [1, 1, 1.01, 1])


def test_what_is_in_pieces():
    mesh = init_device_mesh("cpu", (1,))
    assert not is_sharded(torch.ones(2))
    assert not is_sharded(distribute_tensor(torch.ones(2), mesh, [Shard(0)]))  # one rank has all of it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FullyShardedDataParallel(nn.Linear(2, 1), use_orig_params=True, device_id=torch.device("cpu"))
    assert all(map(is_flattened, model.parameters()))
    assert not is_flattened(nn.Parameter(torch.ones(2)))
