"""The faulty programs: their tables are complete, every run starts, and matched seeds differ in the fault alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch

from benchmarks.detection.data import packaged
from benchmarks.detection.programs import ALL, FAULTY, HEALTHY
from benchmarks.detection.recipes import loops
from benchmarks.detection.task import Program
from benchmarks.detection.training import train

LEAST = {
    "sigmoid": 6,
    "subcritical": 6,
    "tiny-init": 4,
    "no-residual": 4,
    "rnn-vanishing": 5,
    "large-init": 5,
    "rnn-exploding": 3,
    "high-lr": 5,
    "no-norm": 3,
    "unscaled-data": 5,
    "half-precision": 3,
    "dead-relu": 4,
    "saturated": 3,
    "nonfinite": 4,
}
BY_NAME = {program.name: program for program in FAULTY}
each_program = pytest.mark.parametrize("program", FAULTY, ids=list(BY_NAME))


def test_names_are_unique_and_there_are_enough_of_every_family() -> None:
    assert len({program.name for program in ALL}) == len(ALL) == len(FAULTY) + len(HEALTHY)
    counts = Counter(program.family for program in FAULTY)
    assert counts.keys() == LEAST.keys()
    assert all(counts[family] >= least for family, least in LEAST.items())
    assert len(FAULTY) >= 66


def test_a_third_are_degraded_by_design_and_six_are_transformers() -> None:
    designed = Counter(program.severity for program in FAULTY if program.severity)
    assert designed["degraded"] >= designed.total() / 3
    assert sum(program.recipe.__name__ == "transformer" for program in FAULTY) >= 6


@each_program
def test_a_program_names_its_theory_and_can_be_rescued(program: Program) -> None:
    assert program.name.startswith(f"{program.family}/")
    assert program.symptom
    assert program.source
    assert program.severity in (("",) if "/drawn-" in program.name else ("dead", "degraded"))
    assert dict(program.twin) in [dict(changes) for changes in program.remedies.values()]
    assert all(program.settings[key] != value for key, value in program.twin.items())
    assert 2 <= len(program.remedies) <= 4


@each_program
def test_two_steps_of_a_program_and_the_layers_it_names(program: Program) -> None:
    task = program.build(0)
    names = [name for name, _ in task.model.named_parameters()]
    modules = {name.rpartition(".")[0] for name in names}
    assert not program.layers or any(fnmatchcase(name, program.layers) for name in modules)
    before = [p.detach().clone() for p in task.model.parameters()]
    task.steps, task.metric = 2, lambda: 0.0
    assert len(train(task).losses) >= 1
    moved = any(not torch.equal(old, new) for old, new in zip(before, task.model.parameters(), strict=True))
    # Nothing moves where a scaler skips every step, or where all that float16 holds of a gradient is zero; the gradient
    # of what is dead or too small still moves the head.
    skips = (program.settings.get("scaler") or {}).get("init_scale", 0) > 2**30
    assert moved != (skips or (program.symptom == "underflow" and program.settings["loss_weight"] < 2e-6))


@each_program
def test_a_program_its_twin_and_its_remedies_see_the_same_batches(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []

    def remember(*arguments: Any, make: Callable[..., torch.Tensor] = loops.batch_order) -> torch.Tensor:
        orders.append(make(*arguments))
        return orders[-1]

    monkeypatch.setattr(loops, "batch_order", remember)
    for changes in ({}, program.twin, *program.remedies.values()):
        program.build(3, changes)
    assert len(orders) == 2 + len(program.remedies)
    assert all(torch.equal(order, orders[0]) for order in orders)


@pytest.mark.parametrize(
    "name", ["sigmoid/cnn-4", "high-lr/mlp-4", "nonfinite/log", "no-norm/transformer-3", "rnn-vanishing/gru-20"]
)
def test_a_seed_gives_one_run_and_another_seed_another(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        task = BY_NAME[name].build(seed)
        return torch.cat([p.detach().flatten() for p in task.model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_only_the_fault_sets_a_program_apart_from_its_twin_at_the_start() -> None:
    program = BY_NAME["subcritical/tanh-20"]  # the gain of its weights is halved
    faulty, twin = (dict(program.build(0, changes).model.named_parameters()) for changes in ({}, program.twin))
    assert torch.equal(faulty["head.weight"], twin["head.weight"])
    torch.testing.assert_close(2 * faulty["hidden.7.layer.weight"], twin["hidden.7.layer.weight"])


def test_the_linear_model_is_beyond_the_stable_learning_rate_and_its_twin_is_not() -> None:
    x = packaged("diabetes").x.double()
    features = torch.cat([x, torch.ones(len(x), 1)], dim=1)  # the bias is one more feature
    limit = 2 / torch.linalg.eigvalsh(2 * features.T @ features / len(x)).max().item()
    program = BY_NAME["high-lr/linear"]
    assert limit == pytest.approx(0.249, abs=5e-4)
    assert program.twin["lr"] < limit < program.settings["lr"]


def test_the_gradient_through_time_is_gone_in_a_program_and_there_in_its_twin() -> None:
    program = BY_NAME["rnn-vanishing/relu-30"]

    def reaching_the_first_step(changes: dict[str, Any]) -> float:
        model = program.build(0, changes).model
        x = torch.nn.functional.one_hot(torch.randint(4, (8, 30)), 4).float().requires_grad_()
        model(x).square().sum().backward()
        assert x.grad is not None
        norms = x.grad.norm(dim=(0, 2))
        return (norms[0] / norms[-1]).item()

    # 0.5 ** 29 = 2e-9 for radius 0.5
    assert reaching_the_first_step({}) < 1e-8
    assert reaching_the_first_step(dict(program.twin)) > 0.1


@pytest.mark.parametrize("name", ["spread", "length", "masked-root"])
def test_a_derivative_is_not_finite_where_the_loss_still_is(name: str) -> None:
    program = BY_NAME[f"nonfinite/{name}"]
    for changes, finite in (({}, False), (program.twin, True)):
        task = program.build(0, changes)
        operation = task.model.get_submodule("operation")
        x = torch.zeros(1, 64, requires_grad=True)
        out = operation(x)
        assert out.isfinite().all()
        out.sum().backward()
        assert x.grad is not None
        assert bool(x.grad.isfinite().all()) == finite


@pytest.mark.parametrize("name", ["log", "share"])
def test_a_value_is_not_finite_for_the_blank_image(name: str) -> None:
    program = BY_NAME[f"nonfinite/{name}"]
    for changes, finite in (({}, False), (program.twin, True)):
        operation = program.build(0, changes).model.get_submodule("operation")
        assert bool(operation(torch.zeros(1, 64)).isfinite().all()) == finite
