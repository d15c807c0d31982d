"""What is refused before the first step."""

import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch.clipping import AGC, Chain, GlobalNorm, PerGroup, PerLayer
from gradwatch.clipping.check import check_model

DeepSpeedEngine = type("DeepSpeedEngine", (nn.Linear,), {"__module__": "deepspeed.runtime.engine"})


def test_deepspeed_clips_by_itself():
    engine = DeepSpeedEngine(2, 1)
    with pytest.raises(
        ValueError, match=r"clip=GlobalNorm\(.*: DeepSpeed keeps .* set gradient_clipping in its config"
    ):
        gw.Monitor(engine, clip=GlobalNorm(1.0), sinks=())
    gw.Monitor(engine, sinks=())  # watching is another matter


def test_patterns_are_held_against_all_parameters_when_the_monitor_is_made():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with pytest.raises(
        ValueError, match=r"PerGroup: groups: the pattern 'encoder.\*' matches no layer; .*: 0, 1, 0.weight"
    ):
        gw.Monitor(model, clip=Chain(PerGroup({"encoder.*": 1.0})), sinks=())
    with pytest.raises(ValueError, match=r"AGC: exclude: the pattern 'head' matches no layer"):
        gw.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), clip=AGC(exclude="head"), sinks=())
    gw.Monitor(model, clip=PerGroup({"0": 1.0, "1.bias": 2.0}), include="1", sinks=())


def test_what_is_sharded_has_no_largest_element_here():
    flat = nn.Parameter(torch.zeros(3))
    flat._fsdp_flattened = True
    inf = GlobalNorm(1.0, norm_type=float("inf"))
    with pytest.raises(
        ValueError, match=r"GlobalNorm: norm_type=inf: a.weight is sharded, .*model.clip_grad_norm_\(max_norm, "
    ):
        check_model(PerGroup({"a": inf}), nn.Linear(1, 1), {"a.weight": flat})
    check_model(GlobalNorm(1.0), nn.Linear(1, 1), {"a.weight": flat})
    check_model(inf, nn.Linear(1, 1), {"a.weight": nn.Parameter(torch.zeros(3))})
    with pytest.raises(ValueError, match=r"AGC: a.weight is cut to pieces"):
        check_model(Chain(AGC()), nn.Linear(1, 1), {"a.weight": flat})
    check_model(PerLayer(1.0), nn.Linear(1, 1), {"a.weight": flat})
