from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwatch.diagnosis.account import account
from gradwatch.profile import ENDS, BackwardProfile, Segment, TimeSteps
from tests.diagnosis.profiles import PROFILES, activation, chain, linear, weight

FINITE = ["sigmoids", "saturated", "small", "large", "deep and narrow", "healthy", "residual", "no names"]


@pytest.mark.parametrize("name", FINITE)
def test_shares_add_up_to_the_whole(name: str) -> None:
    whole = account(PROFILES[name])
    assert whole is not None
    faults = {e.fault for e in whole.entries}
    assert math.fsum(whole.share(fault) for fault in faults) == pytest.approx(1.0 if whole.log_gain else 0.0)


@pytest.mark.parametrize("name", FINITE)
def test_the_entries_are_the_log_gain_less_that_of_a_healthy_network(name: str) -> None:
    profile = PROFILES[name]
    whole = account(profile)
    assert whole is not None
    reference = {"Relu": math.log(0.5)}
    weights = {"Relu": math.log(2.0)}
    operation = next((s.operation for s in profile.segments if s.kind == "activation"), "")
    expected = sum(
        s.log_gain
        - (reference.get(s.operation, 0.0) if s.kind == "activation" else 0.0)
        - (weights.get(operation, 0.0) if s.kind == "weight" else 0.0)
        for s in profile.segments
        if s.kind not in ENDS
    )
    assert whole.log_gain == pytest.approx(expected)


def test_a_network_at_the_critical_point_has_nothing_to_account_for() -> None:
    """He et al.: ReLU passes a half and weights of variance 2 / fan_in make up for it."""
    profile = chain(50, "Relu", 0.5, 2.0)
    whole = account(profile)
    assert whole is not None
    assert whole.log_gain == pytest.approx(math.log(1.0 / 2.0) + 0.0)  # the head passes 1 in place of 2
    assert whole.confidence("weights") == pytest.approx(math.log(2) / 6.0, abs=0.01)


def test_a_sigmoid_is_split_into_its_bound_and_its_saturation() -> None:
    whole = account(BackwardProfile((activation("fc", "Sigmoid", 1 / 64),)))
    assert whole is not None
    assert [(e.fault, e.excess) for e in whole.entries] == [
        ("bounded", pytest.approx(math.log(1 / 16))),
        ("saturation", pytest.approx(math.log(1 / 4))),
    ]


@pytest.mark.parametrize(
    "at_output", [activation("out", "Sigmoid", 0.01), Segment("out", "attention", "Softmax", 0.01, 1)]
)
def test_an_activation_behind_the_last_layer_is_none_between_layers(at_output: Segment) -> None:
    body = chain(4, "Sigmoid", 0.05, 1.0)
    assert account(replace(body, segments=(at_output, *body.segments))) == account(body)


def test_an_activation_before_several_heads_is_between_layers() -> None:
    body = chain(4, "Tanh", 0.05, 1.0)
    heads = replace(body, segments=body.segments[1:], weights=(*body.weights, weight("value", 1.0)))
    whole = account(heads)
    assert whole is not None
    assert [e.segment for e in whole.entries] == [*heads.segments]


def test_the_softmax_of_an_attention_is_no_activation_between_layers() -> None:
    softmax = Segment("net", "attention", "Softmax", 1e-6, 1.0)
    product, dropout = Segment("net", "multiply", "Bmm", 2.0, 1.0), Segment("net", "dropout", "NativeDropout", 1.0, 1.0)
    for behind, fault in (((product,), "scores"), ((product, dropout), "scores"), ((linear("fc", 1.0),), "bounded")):
        whole = account(BackwardProfile((linear("out", 1.0), *behind, softmax, product, linear("in", 1.0))))
        assert whole is not None
        assert [(e.segment, e.excess) for e in whole.of(fault)] == [(softmax, pytest.approx(math.log(1e-6)))]


def test_where_the_gradient_ends_the_account_ends() -> None:
    whole = account(BackwardProfile((linear("head", 2.0), activation("fc", "Relu", 0.0), linear("fc", 1e9))))
    assert whole is not None
    assert (whole.is_cut, whole.log_gain, whole.share("dead"), whole.share("weights")) == (True, -math.inf, 1.0, 0.0)


def test_where_layers_are_normalised_weights_and_norms_are_one() -> None:
    norm = Segment("norm", "norm", "NativeLayerNorm", 0.01, 1.0)
    whole = account(BackwardProfile((norm, linear("fc", 100.0))))
    assert whole is not None
    assert {e.fault for e in whole.entries} == {"norm"}
    assert whole.log_gain == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["nothing", "NaN", "inf", "float16"])
def test_what_cannot_be_accounted_for(name: str) -> None:
    assert account(PROFILES[name]) is None
    assert account(None) is None


def test_time_steps_are_no_layers_of_depth() -> None:
    """A cell of 40 steps between an encoder and a head: what it loses is lost in time."""
    cell = [activation("cell", "Tanh", 1.0), linear("cell", 0.25)] * 40
    cell = [replace(s, layer="cell") for s in cell]
    times = TimeSteps("cell", np.full(39, 0.25), np.ones(40))
    whole = account(BackwardProfile((linear("head", 1.0), *cell), (times,)))
    assert whole is not None
    assert (whole.share("time"), whole.share("weights")) == (pytest.approx(1.0), pytest.approx(0.0))
