"""Real processes on gloo against one process that trains on the whole batches in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from torch import Tensor

from gradwatch.clipping import Chain, SkipNonFinite
from gradwatch.histograms import MANTISSA_BITS
from gradwatch.stats import Measured, measure
from gradwatch.tags import HISTOGRAM_EDGES
from tests.matrix.one_process import (
    assert_close,
    assert_parameters,
    assert_same_on_all_ranks,
    assert_totals,
    by_layer,
    expected,
)
from tests.matrix.ranks import Ranks
from tests.matrix.table import Group
from tests.matrix.workers import policies
from tests.matrix.workers.placements import GRADIENTS, MAX_NORM, OVERFLOWING, full
from tests.matrix.workers.training import TRAININGS
from tests.models import as_float64

cell = Group("Distributed, real processes on gloo")

pytestmark = pytest.mark.slow

EVERY_STEP = tuple(range(100))


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    with Ranks() as started:
        yield started


def all_reduces(result: dict[str, Any]) -> list[int]:
    """How many each step of the monitor made."""
    return [sum("reduce" in name for name, _ in step) for step in result["collectives"]]


# -- every way to spread a model -------------------------------------------------------------------------------------


class Run(NamedTuple):
    title: str
    case: str
    world: int
    training: str = "net"
    within: float = 1e-5
    all_reduces: int = 1


DDP = "DistributedDataParallel"
RUNS = (
    Run(f"{DDP}, 2 ranks", "ddp_plain", 2, all_reduces=0),
    Run(f"{DDP}, 4 ranks", "ddp_plain", 4, all_reduces=0),
    Run(f"{DDP}, watched by the optimizer's hook", "ddp_hooked", 2, all_reduces=0),
    Run(f"{DDP}, accumulation with no_sync()", "ddp_no_sync", 2, "net in micro-batches", all_reduces=0),
    Run(f"{DDP}, parameters unused on one rank and on all, 2 ranks", "ddp_unused", 2, "branches", all_reduces=0),
    Run(f"{DDP}, parameters unused on two ranks and on all, 4 ranks", "ddp_unused", 4, "branches", all_reduces=0),
    Run(f"{DDP}, gradient_as_bucket_view=True", "ddp_bucket_views", 2, all_reduces=0),
    Run(f"{DDP}, static_graph=True", "ddp_static_graph", 2, all_reduces=0),
    Run(f"{DDP}, tied weights", "ddp_tied", 2, "tied", all_reduces=0),
    Run("plain replicas, averaged by hand", "averaged_by_hand", 2, all_reduces=0),
    Run(f"{DDP} with ZeroRedundancyOptimizer", "zero_redundancy", 2, all_reduces=0),
    Run("FSDP2, fully_shard of each block, uneven and empty shards, 2 ranks", "fsdp2_by_block", 2),
    Run("FSDP2, fully_shard of each block, uneven and empty shards, 4 ranks", "fsdp2_by_block", 4),
    Run("FSDP2, fully_shard of the model as one", "fsdp2_whole", 2),
    Run("FSDP2, watched by the optimizer's hook", "fsdp2_hooked", 2),
    Run("FSDP2, accumulation with set_requires_gradient_sync()", "fsdp2_accumulated", 2, "net in micro-batches"),
    Run("FSDP2, bfloat16 parameters reduced in float32", "fsdp2_mixed_precision", 2, within=5e-2),
    Run("FSDP2, frozen parameters", "fsdp2_frozen", 2, "frozen"),
    Run("FSDP2, a parameter unused on all ranks, 2 ranks", "fsdp2_unused", 2, "branches"),
    Run("FSDP2, a parameter unused on all ranks, 4 ranks", "fsdp2_unused", 4, "branches"),
    Run("FSDP2, tied weights", "fsdp2_tied", 2, "tied"),
    Run("HSDP, 2 x 2", "hsdp", 4),
    Run("tensor parallelism, other parameters plain, 2 ranks", "tp_megatron", 2),
    Run("tensor parallelism, other parameters plain, 4 ranks", "tp_megatron", 4),
    Run("tensor parallelism by sequence, norms replicated, Partial gradients", "tp_by_sequence", 2),
    Run("tensor parallelism in 2 replicas: parameters on a slice of the mesh", "tp_in_replicas", 4),
    Run("FSDP2 x tensor parallelism, 2 x 2, some parameters on one dimension", "fsdp2_and_tp_megatron", 4),
    Run("FSDP2 x tensor parallelism by sequence, 2 x 2", "fsdp2_and_tp_by_sequence", 4),
    Run("FSDP1, use_orig_params=True, FULL_SHARD, 2 ranks", "fsdp1_full_shard", 2),
    Run("FSDP1, use_orig_params=True, FULL_SHARD, 4 ranks", "fsdp1_full_shard", 4),
    Run("FSDP1, use_orig_params=True, SHARD_GRAD_OP", "fsdp1_shard_grad_op", 2),
    Run("FSDP1, use_orig_params=True, NO_SHARD", "fsdp1_no_shard", 2),
    Run("FSDP1, use_orig_params=True, HYBRID_SHARD, 2 x 2", "fsdp1_hybrid_shard", 4),
)

each_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.case}-{run.world}")


def a_row_each(test: Callable[..., None]) -> Callable[..., None]:
    for run in RUNS:
        cell(run.title, within=run.within)(test)
    return test


@a_row_each
@each_run
def test_norms_are_those_of_one_process(ranks: Ranks, run: Run) -> None:
    """And within 1e-6 those of the gradients that the ranks have, gathered."""
    wanted = expected(run.training)
    for result in ranks(run.world)[run.case]:
        assert result["steps"] == [0, 1, 2]
        assert result["alerts"] == []
        assert_close(by_layer(result), wanted.norms, run.within)
        assert_close(by_layer(result), result["own"], 1e-6)
        assert_totals(result, wanted.norms, run.within)
        assert_totals(result, result["own"], 1e-6)


@cell("clipping by GlobalNorm in each of these: parameters after 3 steps", within=1e-6)
@each_run
def test_clipping_is_that_of_one_process(ranks: Ranks, run: Run) -> None:
    wanted = expected(run.training)
    assert min(wanted.coefficients) < 0.5
    for result in ranks(run.world)[run.case]:
        assert_parameters(result, wanted.parameters, within=1e-6 if run.within <= 1e-5 else 1e-2)
        clips = result["clips"]
        np.testing.assert_allclose([clip["coefficient"] for clip in clips], wanted.coefficients, rtol=run.within)
        np.testing.assert_allclose([clip["norm_before"] for clip in clips], result["totals"], rtol=1e-6)
        np.testing.assert_allclose([clip["norm_after"] for clip in clips], 0.3, rtol=1e-5)


@cell("history, alerts, totals and clip coefficients of each of these on every rank, bit for bit")
@each_run
def test_every_rank_knows_the_same(ranks: Ranks, run: Run) -> None:
    assert_same_on_all_ranks(ranks(run.world)[run.case])


@cell("collectives of a step: one all_reduce where a model is sharded, else none")
@each_run
def test_one_all_reduce_per_step_and_none_for_replicas(ranks: Ranks, run: Run) -> None:
    for result in ranks(run.world)[run.case]:
        assert all_reduces(result) == [run.all_reduces] * 3


@cell("FSDP1, use_orig_params=False: one layer for each flat parameter", within=1e-5)
def test_flat_parameters(ranks: Ranks) -> None:
    wanted = expected("net")
    parts = {"Net": ("inp", "head", "gain"), "blocks.0": ("blocks.0.",), "blocks.1": ("blocks.1.",)}
    norms = [
        {
            flat: float(np.linalg.norm([norm for layer, norm in step.items() if layer.startswith(layers)]))
            for flat, layers in parts.items()
        }
        for step in wanted.norms
    ]
    by_rank = ranks(2)["fsdp1_flat"]
    assert_same_on_all_ranks(by_rank)
    assert_close(by_layer(by_rank[0]), norms, within=1e-5)
    assert_totals(by_rank[0], norms, within=1e-5)
    assert_parameters(by_rank[0], wanted.parameters)
    assert all_reduces(by_rank[0]) == [1, 1, 1]


# -- every placement -------------------------------------------------------------------------------------------------


def total_of(gradients: dict[str, Tensor]) -> float:
    return float(np.linalg.norm([np.linalg.norm(as_float64(gradient)) for gradient in gradients.values()]))


@cell(
    "a gradient of each placement: Shard, Replicate and Partial on a mesh, a slice of it or some of its ranks",
    within=1e-6,
)
@pytest.mark.parametrize("name", GRADIENTS)
def test_norms_in_every_placement(ranks: Ranks, name: str) -> None:
    for result in ranks(4)["placements"]:
        norm = by_layer(result)[0][f"g: {name}"]
        np.testing.assert_allclose(norm, np.linalg.norm(as_float64(GRADIENTS[name])), rtol=1e-6)


@cell("the same gradients clipped by GlobalNorm", within=1e-6)
@pytest.mark.parametrize("name", GRADIENTS)
def test_clipping_in_every_placement(ranks: Ranks, name: str) -> None:
    truth = as_float64(GRADIENTS[name]).reshape(-1) * MAX_NORM / total_of(GRADIENTS)
    truth = truth.view(np.float64)  # both parts of a complex number
    members = [after for result in ranks(4)["placements"] if (after := result["after"][name]) is not None]
    assert len(members) == (2 if name.startswith("ranks 1 and 2") else 4)
    for after in members:
        np.testing.assert_allclose(after, truth, rtol=1e-2 if name == "bfloat16" else 2e-6)


@cell("sharded gradients whose squares over- or underflow float32", within=1e-6)
def test_overflowing_squares(ranks: Ranks) -> None:
    by_rank = ranks(4)["overflowing"]
    assert_same_on_all_ranks(by_rank)
    norms = {f"g: {name}": float(np.linalg.norm(as_float64(gradient))) for name, gradient in OVERFLOWING.items()}
    assert_close(by_layer(by_rank[0]), [norms], within=1e-6)
    np.testing.assert_allclose(by_rank[0]["coefficient"], MAX_NORM / total_of(OVERFLOWING), rtol=1e-6)


STAGES = (
    [full(2)],
    [full(2), full(3), full(4)],
)


@cell("a pipeline: each rank knows the layers of its own stage; mesh of 2 dimensions", within=1e-6)
@cell("a pipeline, mesh of 3 dimensions", within=1e-6)
@cell("a pipeline, a mesh for each stage", within=1e-6)
@pytest.mark.parametrize(
    "case", ["pipeline_of_one_mesh", "pipeline_of_one_mesh_of_three", "pipeline_of_separate_meshes"]
)
def test_stages_of_a_pipeline(ranks: Ranks, case: str) -> None:
    for rank, result in enumerate(ranks(4)[case]):
        stage = rank // 2
        norms = {
            f"stage {stage}, layer {i}": float(np.linalg.norm(as_float64(gradient)))
            for i, gradient in enumerate(STAGES[stage])
        }
        assert_close(by_layer(result), [norms], within=1e-6)


@cell("a model on some of the ranks", unknown="right on these; on the others right, or without a gradient")
def test_a_model_on_some_ranks(ranks: Ranks) -> None:
    norms = {"Linear": float(np.linalg.norm(as_float64(full(3))))}
    by_rank = ranks(4)["on_ranks_1_and_2"]
    for rank, result in enumerate(by_rank):
        if rank in (1, 2) or by_layer(result) != [{}]:
            assert_close(by_layer(result), [norms], within=1e-6)


# -- what is measured ------------------------------------------------------------------------------------------------


def layer_values(kept: dict[str, Any], layer: str, which: int) -> np.ndarray:
    """All elements of a layer's parameters (0) or gradients (1)."""
    pairs = [pair for name, pair in kept["now"].items() if name.rpartition(".")[0] == layer]
    return np.concatenate([pair[which] for pair in pairs])


@cell("max_abs, zero_fraction, nonfinite, param_norm, histogram and update_ratio, FSDP2 on 2 ranks", within=1e-6)
@cell("the same, FSDP2 on 4 ranks", within=1e-6)
@cell("the same, HSDP, every second step", within=1e-6)
@cell("the same, FSDP1", within=1e-6)
@cell("the same, tensor parallelism by sequence, Partial gradients", within=1e-6)
@pytest.mark.parametrize(
    ("case", "world"),
    [
        ("fsdp2_sampled", 2),
        ("fsdp2_sampled", 4),
        ("hsdp_sampled", 4),
        ("fsdp1_sampled", 2),
        ("tp_by_sequence_sampled", 2),
    ],
)
def test_sampled_statistics(ranks: Ranks, case: str, world: int) -> None:
    every = 2 if case == "hsdp_sampled" else 1
    by_rank = ranks(world)[case]
    assert_same_on_all_ranks(by_rank)
    result = by_rank[0]
    for step, kept in enumerate(result["kept"]):
        stats = kept["stats"]
        if step % every:
            assert stats["max_abs"] is stats["param_norm"] is stats["histogram"] is None
        else:
            gradients = [layer_values(kept, layer, 1) for layer in result["layers"]]
            parameters = [layer_values(kept, layer, 0) for layer in result["layers"]]
            np.testing.assert_allclose(stats["max_abs"], [np.abs(g).max() for g in gradients], rtol=1e-7)
            np.testing.assert_allclose(stats["zero_fraction"], [(g == 0).mean() for g in gradients], rtol=1e-12)
            np.testing.assert_allclose(stats["param_norm"], [np.linalg.norm(p) for p in parameters], rtol=1e-6)
            assert stats["nonfinite"] == [0] * len(gradients)
            for counts, gradient in zip(stats["histogram"], gradients):
                assert_histogram(counts, gradient)
        if step:  # each of the first steps is looked at closely
            before = result["kept"][step - 1]
            moved = [
                np.linalg.norm(layer_values(kept, layer, 0) - (p := layer_values(before, layer, 0))) / np.linalg.norm(p)
                for layer in result["layers"]
            ]
            np.testing.assert_allclose(stats["update_ratio"], moved, rtol=1e-4)  # the difference of near numbers
        else:
            assert stats["update_ratio"] is None
    assert all_reduces(result) == [1, 1, 1]


def assert_histogram(counts: list[int], gradient: np.ndarray) -> None:
    """NumPy's counts, but for elements so near to an edge that the bits counted do not tell their side."""
    logs, found = np.log10(np.abs(gradient[gradient != 0])), np.cumsum(counts)
    near = np.log10(1 + 2.0**-MANTISSA_BITS)
    for edge, below in zip(HISTOGRAM_EDGES[1:-1], found):
        assert np.count_nonzero(logs < edge - near) <= below <= np.count_nonzero(logs < edge + near)
    assert found[-1] == len(logs)


@cell('FSDP2, granularity="parameter"', within=1e-5)
def test_by_parameter(ranks: Ranks) -> None:
    by_rank = ranks(2)["fsdp2_by_parameter"]
    assert_same_on_all_ranks(by_rank)
    model = TRAININGS["net"].model().double()
    for loss in TRAININGS["net"].losses(0):
        loss(model).backward()
    norms = {name: float(np.linalg.norm(as_float64(p.grad))) for name, p in model.named_parameters()}
    assert_close(by_layer(by_rank[0])[:1], [norms], within=1e-5)


@cell("FSDP2, include and exclude: some layers watched, all clipped", within=1e-5)
def test_included(ranks: Ranks) -> None:
    wanted = expected("net")
    by_rank = ranks(2)["fsdp2_included"]
    assert_same_on_all_ranks(by_rank)
    watched = [
        {layer: norm for layer, norm in step.items() if "blocks" in layer and "norm" not in layer}
        for step in wanted.norms
    ]
    assert_close(by_layer(by_rank[0]), watched, within=1e-5)
    assert_parameters(by_rank[0], wanted.parameters)


# -- one rank fares otherwise ------------------------------------------------------------------------------------------


def warned(ranks: Ranks, case: str) -> list[list[str]]:
    return [outcome["warned"] for outcome in ranks(2).outcomes(case)]


def assert_training_of_one_process(by_rank: Sequence[dict[str, Any]]) -> None:
    wanted = expected("net")
    assert_same_on_all_ranks(by_rank)
    assert_close(by_layer(by_rank[0]), wanted.norms, within=1e-5)
    assert_parameters(by_rank[0], wanted.parameters)


@cell("a sink that fails on the rank that writes: one warning there, training and history as ever")
def test_a_sink_fails(ranks: Ranks) -> None:
    assert_training_of_one_process(ranks(2)["sink_fails"])
    first, second = warned(ranks, "sink_fails")
    assert first == ["gradwatch: sink BrokenSink failed, it is dropped: OSError: disk full"]
    assert second == []


@cell("a rule that fails on one rank: one warning there, training and history as ever")
def test_a_rule_fails_on_one_rank(ranks: Ranks) -> None:
    assert_training_of_one_process(ranks(2)["rule_fails_on_rank_1"])
    first, second = warned(ranks, "rule_fails_on_rank_1")
    assert first == []
    assert second == ["gradwatch: rule BrokenOnRank1 failed, it is dropped: ValueError: only here"]


@cell(
    "the measurement fails on one rank at one step",
    unknown="no rank records nor clips that step, each says so, and the next steps are right",
)
def test_measure_fails_on_one_rank(ranks: Ranks) -> None:
    wanted = expected("net", unclipped=(1,))
    by_rank = ranks(2)["measure_fails_on_rank_1"]
    assert_same_on_all_ranks(by_rank)
    for result in by_rank:
        assert result["steps"] == [0, 2]
        assert_close(by_layer(result), [wanted.norms[0], wanted.norms[2]], within=1e-5)
        assert_parameters(result, wanted.parameters)
        assert all_reduces(result) == [1, 1, 1]
    first, second = warned(ranks, "measure_fails_on_rank_1")
    assert [message.count("rank 1 could not measure the gradients") for message in first] == [1]
    assert [message.count("MemoryError: no room left") for message in second] == [1]


@cell(
    "the measurement fails on one rank at step after step",
    unknown="none of these steps is recorded; the rank goes on to take part, so no other waits for it",
)
def test_measure_keeps_failing_on_one_rank(ranks: Ranks) -> None:
    wanted = expected("net", unclipped=EVERY_STEP, steps=8)
    by_rank = ranks(2)["measure_keeps_failing_on_rank_1"]
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [6, 7]
    assert_close(by_layer(by_rank[0]), wanted.norms[6:], within=1e-5)
    assert all_reduces(by_rank[0]) == [1] * 8
    assert [len(messages) for messages in warned(ranks, "measure_keeps_failing_on_rank_1")] == [1, 1]


@cell("the sampled statistics fail on one rank", unknown="they are missing on every rank at that step; norms are right")
def test_sampling_fails_on_one_rank(ranks: Ranks) -> None:
    by_rank = ranks(2)["sampling_fails_on_rank_1"]
    assert_training_of_one_process(by_rank)
    for result in by_rank:
        assert {name: result["stats"][name] for name in ("max_abs", "param_norm", "zero_fraction", "histogram")} == {
            "max_abs": None,
            "param_norm": None,
            "zero_fraction": None,
            "histogram": None,
        }


@cell(
    "how far a step moved the parameters is not known on one rank",
    unknown="the update ratio is missing on every rank at that step",
)
def test_parameter_sample_fails_on_one_rank(ranks: Ranks) -> None:
    by_rank = ranks(2)["parameter_sample_fails_on_rank_1"]
    assert_training_of_one_process(by_rank)
    for result in by_rank:
        assert result["stats"]["update_ratio"] is None
        assert result["stats"]["param_norm"] is not None


@cell("all gradients None on one rank of a sharded model: the norm of what there is, on every rank", within=1e-6)
def test_no_gradients_on_one_rank(ranks: Ranks) -> None:
    by_rank = ranks(2)["no_gradients_on_rank_1"]
    assert_same_on_all_ranks(by_rank, "squares")
    squares = np.sum([result["squares"] for result in by_rank], axis=0)
    assert by_rank[1]["squares"][1] == 0 < by_rank[0]["squares"][1]
    np.testing.assert_allclose(by_rank[0]["totals"], np.sqrt(squares), rtol=1e-6)
    assert all(all_reduces(result) == [1, 1, 1] for result in by_rank)


@cell("all gradients None on one rank, where the others have Partial ones: nothing hangs or crashes")
def test_no_partial_gradients_on_one_rank(ranks: Ranks) -> None:
    by_rank = ranks(2)["no_partial_gradients_on_rank_1"]
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [0]


@cell("NaN in one rank's shard: the alert names the rank, no rank clips, 2 ranks")
@cell("NaN in one rank's shard, 4 ranks")
@pytest.mark.parametrize("world", [2, 4])
def test_nan_on_one_rank(ranks: Ranks, world: int) -> None:
    by_rank = ranks(world)["nan_on_rank_1"]
    assert_same_on_all_ranks(by_rank, "parameters")  # not equal to itself
    alerts = by_rank[0]["alerts"]
    assert [(a["step"], a["rule"], a["layer"], a["severity"]) for a in alerts] == [(1, "nonfinite", "inp", "error")]
    assert "rank 1" in alerts[0]["message"]
    norms, finite = by_layer(by_rank[0])[1], expected("net").norms[1]
    assert np.isnan(norms.pop("inp"))
    assert_close([norms], [{name: norm for name, norm in finite.items() if name != "inp"}], within=1e-5)
    unclipped = expected("net", unclipped=(1,), steps=2).parameters
    found = {name: np.array(values) for name, values in by_rank[0]["parameters"].items()}
    assert sum(np.isnan(values).sum() for values in found.values()) == 1
    for name, values in found.items():
        known = ~np.isnan(values)
        np.testing.assert_allclose(values[known], unclipped[name][known], rtol=0, atol=1e-6)


@cell(f"NaN in one rank's batch with {DDP}: every rank has it, and names the layers")
def test_nan_in_one_batch(ranks: Ranks) -> None:
    by_rank = ranks(2)["nan_in_the_batch_of_rank_1"]
    assert_same_on_all_ranks(by_rank)
    assert [(alert["step"], alert["rule"]) for alert in by_rank[0]["alerts"]] == [(1, "nonfinite")]
    assert np.isnan(list(by_layer(by_rank[0])[1].values())).all()
    assert all_reduces(by_rank[0]) == [0, 0, 0]


@cell("GradScaler with FSDP2, an overflow on one rank: skipped on every rank, named, not an explosion", within=1e-5)
def test_a_scaler_skips(ranks: Ranks) -> None:
    by_rank = ranks(2)["a_scaler_skips"]
    assert_same_on_all_ranks(by_rank)
    result = by_rank[0]
    assert result["skipped"] == [False, True, False]
    assert result["scale"] == 512
    assert [(a["step"], a["rule"], a["layer"], a["severity"]) for a in result["alerts"]] == [
        (1, "skipped", "inp", "info")
    ]
    assert_close(by_layer(result)[:1], expected("net").norms[:1], within=1e-5)


# -- when, and by whom -------------------------------------------------------------------------------------------------


@cell("every_n_steps=2: an all_reduce at every second step alone", within=1e-5)
def test_every_second_step(ranks: Ranks) -> None:
    by_rank = ranks(2)["every_second_step"]
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [0, 2, 4]
    assert all_reduces(by_rank[0]) == [1, 0, 1, 0, 1]
    assert_close(by_layer(by_rank[0]), expected("net", unclipped=EVERY_STEP, steps=5).norms[::2], within=1e-5)


@cell("every_n_steps=2 with a clip policy: every step clipped, every second recorded", within=1e-5)
def test_every_second_step_clipped(ranks: Ranks) -> None:
    by_rank = ranks(2)["every_second_step_clipped"]
    wanted = expected("net")
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [0, 2]
    assert_close(by_layer(by_rank[0]), wanted.norms[::2], within=1e-5)
    assert_parameters(by_rank[0], wanted.parameters)
    assert all_reduces(by_rank[0]) == [1, 1, 1]


@cell("monitor.clip_grad_norm_() with FSDP2: the total of one process returned, and clipped by it", within=1e-5)
def test_clip_grad_norm_in_the_loop(ranks: Ranks) -> None:
    wanted = expected("net")
    by_rank = ranks(2)["clip_grad_norm_in_the_loop"]
    assert_same_on_all_ranks(by_rank)
    assert_close(by_layer(by_rank[0]), wanted.norms, within=1e-5)
    assert_parameters(by_rank[0], wanted.parameters)
    assert by_rank[0]["returned"] == pytest.approx(by_rank[0]["totals"], rel=1e-7)
    assert all_reduces(by_rank[0]) == [1, 1, 1]


@cell("two optimizers with FSDP2: one record and one all_reduce for a step of both", within=1e-5)
def test_two_optimizers(ranks: Ranks) -> None:
    wanted = expected("net", unclipped=EVERY_STEP)
    by_rank = ranks(2)["two_optimizers"]
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [0, 1, 2]
    assert_close(by_layer(by_rank[0]), wanted.norms, within=1e-5)
    assert_parameters(by_rank[0], wanted.parameters)
    assert all_reduces(by_rank[0]) == [1, 1, 1]


@cell("clipping by Value with FSDP2: every element of the whole gradient")
@cell("clipping by Value of Partial gradients: every element of their sum")
@pytest.mark.parametrize("case", ["clamped_shards", "clamped_summands"])
def test_clipping_by_value(ranks: Ranks, case: str) -> None:
    by_rank = ranks(2)[case]
    assert_same_on_all_ranks(by_rank)
    for name, before in by_rank[0]["before"].items():
        np.testing.assert_allclose(by_rank[0]["after"][name], np.clip(before, -0.05, 0.05), rtol=1e-6)
    assert max(np.abs(before).max() for before in by_rank[0]["before"].values()) > 0.1


@cell("report(), state_dict() and flush() on rank 0 alone: no collective")
def test_rank_0_asks_alone(ranks: Ranks) -> None:
    by_rank = ranks(2)["rank_0_asks"]
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["asked"] == []
    assert by_rank[0]["steps"] == [0, 1]


@cell("close() on every rank: the hooks and the collectives end")
def test_close(ranks: Ranks) -> None:
    by_rank = ranks(2)["closed_at_both"]
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [0, 1]
    assert all_reduces(by_rank[0]) == [1, 1, 0, 0]


@cell("resuming every rank from rank 0's state_dict()")
def test_resume(ranks: Ranks) -> None:
    by_rank = ranks(2)["resumed"]
    assert_same_on_all_ranks(by_rank)
    assert by_rank[0]["steps"] == [0, 1, 2]
    assert_close(by_layer(by_rank[0])[:2], expected("net").norms[:2], within=1e-5)


@cell(f"a monitor on rank 0 alone with {DDP}", within=1e-5)
def test_a_monitor_on_one_rank(ranks: Ranks) -> None:
    first, second = ranks(2)["monitor_on_rank_0_alone"]
    assert_close(by_layer(first), expected("net", unclipped=EVERY_STEP).norms, within=1e-5)
    assert all_reduces(first) == all_reduces(second) == [0, 0, 0]


@cell("JSONL and TensorBoard in one directory for all ranks or one for each: rank 0 writes, Memory on every rank")
@pytest.mark.parametrize("case", ["written_in_replicas", "written_in_shards"])
def test_rank_0_writes(ranks: Ranks, case: str) -> None:
    first, second = ranks(2)[case]
    assert [sorted(name.split(".")[0] for name in result["own"]) for result in (first, second)] == [
        ["events", "lines"],
        ["lines"],  # opened, and left empty
    ]
    assert min(first["own"].values()) > 1000
    assert sum(second["own"].values()) == 0
    assert len([name for name in first["of_all"] if name.startswith("events")]) == 1
    assert [json.loads(line)["stats"]["step"] for line in first["lines"]] == [0, 1, 2]
    assert first["memory"] == second["memory"] == [0, 1, 2]


# -- the group comes late, or breaks -----------------------------------------------------------------------------------


@cell(f"a monitor made before init_process_group, then {DDP}", within=1e-5)
@cell("a monitor made before init_process_group, then fully_shard", within=1e-5)
@pytest.mark.parametrize("case", ["monitor_before_the_group_and_ddp", "monitor_before_the_group_and_fsdp2"])
def test_a_monitor_before_the_group(ranks: Ranks, case: str) -> None:
    by_rank = ranks(2)[case]
    wanted = expected("net")
    assert_same_on_all_ranks(by_rank, "own")
    assert_close(by_layer(by_rank[0]), wanted.norms, within=1e-5)
    assert_parameters(by_rank[0], wanted.parameters)
    assert all_reduces(by_rank[0]) == [int(case.endswith("fsdp2"))] * 3
    assert by_rank[0]["own"]["lines.jsonl"] > 1000
    assert by_rank[1]["own"]["lines.jsonl"] == 0


@cell("report() and close() after destroy_process_group")
def test_the_group_is_destroyed_before_close(ranks: Ranks) -> None:
    by_rank = ranks(2)["group_destroyed_before_close"]
    assert_same_on_all_ranks(by_rank, "own")
    assert by_rank[0]["verdict"] == "healthy: 3 steps, 9 layers, no alert"
    assert by_rank[0]["own"]["lines.jsonl"] > 1000
    assert by_rank[1]["own"]["lines.jsonl"] == 0


@cell("a rank dies", unknown="the others are told of it once, record no more, and wait for nobody")
def test_a_rank_dies(ranks: Ranks) -> None:
    (survivor,) = ranks(2).outcomes("rank_1_dies", but=(1,))
    assert survivor["returned"]["steps"] == [0]
    assert max(survivor["returned"]["waited"]) < 5
    assert len(survivor["warned"]) == 1
    assert "the capture of gradients failed" in survivor["warned"][0]


@cell(
    "one rank calls monitor.step() once less than the others",
    unknown="they wait as long as the process group's timeout, are told of it once, and record no more",
)
def test_one_rank_measures_a_step_less(ranks: Ranks) -> None:
    alone, other = ranks(2)["rank_1_measures_one_step_less"]
    assert alone["steps"] == other["steps"] == [0]
    assert alone["norms"] == other["norms"]
    assert 2 < alone["waited"][1] < 10  # the timeout is 3 s
    assert alone["waited"][2] < 1
    assert [len(messages) for messages in warned(ranks, "rank_1_measures_one_step_less")] == [1, 0]


# -- clip policies ---------------------------------------------------------------------------------------------------


@cache
def clipped_in_one_process(policy: str) -> tuple[list[Any], dict[str, np.ndarray]]:
    """The records of each step and the parameters after the last: one process, whole batches, float64."""
    model = policies.NET.model().double()
    clip, optimizer = Chain(SkipNonFinite(), policies.POLICIES[policy]()), policies.NET.optimizer(model)
    names, parameters = zip(*model.named_parameters())
    records = []
    for step in range(policies.STEPS):
        optimizer.zero_grad()
        (policies.scale(step) * policies.NET.losses(step)[0](model)).backward()
        gradients = [p.grad for p in parameters]
        found = measure(gradients)
        stats = Measured(found.norms, found.total_norm, names=names, parameters=parameters)
        records.append(clip.clip_(gradients, stats))
        optimizer.step()
    return records, {name: as_float64(p.detach()).reshape(-1) for name, p in zip(names, parameters)}


SPREAD = {
    DDP: ("policies_ddp", 2),
    "FSDP2, uneven and empty shards, 2 ranks": ("policies_fsdp2", 2),
    "FSDP2, uneven and empty shards, 4 ranks": ("policies_fsdp2", 4),
    "HSDP, 2 x 2": ("policies_hsdp", 4),
    "tensor parallelism, other parameters plain": ("policies_tp", 2),
    "tensor parallelism by sequence, Partial gradients": ("policies_tp_by_sequence", 2),
    "FSDP1, use_orig_params=True, ranks that hold nothing of a layer": ("policies_fsdp1", 2),
}


def a_row_for_each_spread(test: Callable[..., None]) -> Callable[..., None]:
    for title in SPREAD:
        cell(
            f"clip policies with a spike and a NaN on the way: parameters after {policies.STEPS} steps, {title}",
            within=1e-5,
        )(test)
    return test


@a_row_for_each_spread
@pytest.mark.parametrize(("case", "world"), SPREAD.values(), ids=[f"{case}-{world}" for case, world in SPREAD.values()])
def test_every_policy_clips_as_in_one_process(ranks: Ranks, case: str, world: int) -> None:
    by_rank = ranks(world)[case]
    assert_same_on_all_ranks(by_rank)
    for policy, result in by_rank[0].items():
        records, parameters = clipped_in_one_process(policy)
        assert_parameters(result, parameters, within=1e-5)
        for ours, theirs in zip(result["clips"], records, strict=True):
            before, wanted = (float(r) for r in (ours["norm_before"], theirs.norm_before))
            np.testing.assert_allclose(before, wanted, rtol=1e-4)
            for mine, part in zip(ours["parts"], theirs.parts, strict=True):
                if mine["clipped"] != "nan":  # what AGC clips on other ranks is not known
                    assert mine["clipped"] == pytest.approx(float(part.clipped))
        skipped = [clip["coefficient"] == 0 for clip in result["clips"]]
        assert skipped[policies.BAD]
        assert skipped[policies.SPIKE] == (policy == "skip_spike")


@cell("AGC where no rank has whole units, PerLayer of flat parameters, the largest element of a sharded model: refused")
def test_what_cannot_be_right_is_refused(ranks: Ranks) -> None:
    by_rank = ranks(2)["policies_refused"]
    assert by_rank[0] == by_rank[1]
    said = by_rank[0]
    assert sorted(said) == [
        "agc of matrices, flat",
        "agc of matrices, fsdp1",
        "agc of matrices, tp",
        "agc, flat",
        "agc, fsdp1",
        "agc, fsdp2",
        "agc, tp",
        "inf, flat",
        "inf, fsdp1",
        "inf, fsdp2",
        "inf, tp",
        "per_layer, flat",
    ]
    assert "model.clip_grad_norm_(max_norm" in said["agc, fsdp1"]
    assert "use_orig_params=True" in said["per_layer, flat"]
    assert "is sharded as Shard(dim=1)" in said["agc of matrices, tp"]


@cell("SkipNonFinite with NaN in one rank's shard: every rank stops at the same step")
def test_a_policy_stops_all_ranks(ranks: Ranks) -> None:
    first, second = ranks(2)["policies_stop_all_ranks"]
    assert first == second
    assert first["step"] == 2
    assert "not finite for 3 steps in a row, max_consecutive=2 may be skipped: inp.weight (1 of" in first["said"]
