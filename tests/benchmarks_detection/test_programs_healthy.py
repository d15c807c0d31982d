"""The healthy programs: every one starts, moves and is the same run when its seed is; the traps are what they say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from benchmarks.detection.programs.healthy import PROGRAMS
from benchmarks.detection.recipes.loops import Loop
from benchmarks.detection.recipes.optimizers import Lars, Lion
from benchmarks.detection.recipes.points import energy_distance, likeness, ring, ring_log_density
from benchmarks.detection.task import Program, Task
from benchmarks.detection.training import train

BY_NAME = {program.name: program for program in PROGRAMS}


def _names(programs: tuple[Program, ...]) -> list[str]:
    return [program.name for program in programs]


def _two_steps(task: Task) -> list[float]:
    """The losses of two steps."""
    task.metric, task.steps = lambda: 0.0, 2
    return train(task).losses.tolist()


class _Gradients:
    """An observer that keeps the gradients of one step, by name; None where there is none."""

    def __init__(self, task: Task, at: int = 0) -> None:
        self._task, self._at = task, at
        self.found: dict[str, Tensor | None] = {}

    def gradients_ready(self, step: int) -> None:
        if step == self._at:
            parameters = self._task.model.named_parameters()
            self.found = {name: None if p.grad is None else p.grad.clone() for name, p in parameters}

    def stepped(self, step: int, loss: float) -> None:
        pass


def _gradients(name: str, at: int = 0, seed: int = 0) -> dict[str, Tensor | None]:
    task = BY_NAME[name].build(seed)
    task.metric, task.steps = lambda: 0.0, at + 1
    observer = _Gradients(task, at)
    train(task, observer)
    return observer.found


def test_names_are_unique_and_there_are_enough() -> None:
    assert len(BY_NAME) == len(PROGRAMS) >= 66


def test_all_are_healthy_by_design() -> None:
    assert all(p.is_healthy and not p.symptom and not p.remedies and not p.twin for p in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=_names(PROGRAMS))
def test_two_steps_move_the_parameters_or_are_skipped(program: Program) -> None:
    task = program.build(0)
    before = [p.detach().clone() for p in task.model.parameters()]
    assert all(math.isfinite(loss) for loss in _two_steps(task))
    after = list(task.model.parameters())
    moved = any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    skipped = (
        task.scaler is not None and task.scaler.get_scale() < BY_NAME[program.name].settings["scaler"]["init_scale"]
    )
    assert moved != skipped


@pytest.mark.parametrize("program", PROGRAMS[::6], ids=_names(PROGRAMS[::6]))
def test_a_seed_gives_one_run_and_another_seed_another(program: Program) -> None:
    first, first_losses = (task := program.build(0)), _two_steps(task)
    again, again_losses = (task := program.build(0)), _two_steps(task)
    assert first_losses == again_losses != _two_steps(program.build(1))
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["healthy-half-precision/first-steps-skipped", "healthy-generative/gan"])
def test_a_metric_leaves_the_run_as_it_is(name: str) -> None:
    measured = BY_NAME[name].build(0)
    measured.steps = 12
    losses = train(measured).losses.tolist()
    unmeasured = BY_NAME[name].build(0)
    unmeasured.steps, unmeasured.metric = 12, lambda: 0.0
    assert train(unmeasured).losses.tolist() == losses
    assert measured.model.training


class TestTraps:
    """Each is there: otherwise the program would prove nothing."""

    def test_lora_a_has_no_gradient_at_first_and_one_later(self) -> None:
        first, later = (_gradients("healthy-partly-frozen/lora", at)["0.lora_A.weight"] for at in (0, 2))
        assert first is not None
        assert later is not None
        assert first.count_nonzero() == 0
        assert later.count_nonzero() > 0

    @pytest.mark.parametrize(
        ("name", "parameter"),
        [
            ("architectures/rezero", "1.branch.0.weight"),
            ("architectures/last-layer-zero", "1.branch.0.weight"),
            ("architectures/resnet", "3.branch.0.weight"),
            ("generative/normalising-flow", "0.net.0.weight"),
            ("sparse/skip-gram", "centre.weight"),
        ],
    )
    def test_branches_that_start_at_zero_have_no_gradient_at_first(self, name: str, parameter: str) -> None:
        gradient = _gradients(f"healthy-{name}")[parameter]
        assert gradient is not None
        assert gradient.count_nonzero() == 0

    def test_layer_scale_makes_a_branch_a_million_times_smaller(self) -> None:
        found = _gradients("healthy-architectures/layer-scale")
        branch, head = found["1.branch.1.weight"], found["7.weight"]
        assert branch is not None
        assert head is not None
        assert 0 < branch.norm() < 1e-5 * head.norm()

    def test_a_bias_before_batch_norm_has_a_rounding_error_for_gradient(self) -> None:
        found = _gradients("healthy-architectures/vgg")
        bias, weight = found["0.bias"], found["0.weight"]
        assert bias is not None
        assert weight is not None
        assert bias.norm() < 1e-5 * weight.norm()

    def test_the_bias_of_keys_has_a_rounding_error_for_gradient(self) -> None:
        found = _gradients("healthy-small-transformers/pre-2")
        key, value = found["blocks.0.attention.key.bias"], found["blocks.0.attention.value.bias"]
        assert key is not None
        assert value is not None
        assert key.norm() < 1e-5 * value.norm()

    @pytest.mark.parametrize(
        ("name", "parameter", "below"),
        [
            ("bert", "blocks.0.attention.query.weight", 1e-3),
            ("deberta", "blocks.1.attention.position_key.weight", 1e-5),
            ("electra", "generator.blocks.0.attention.key.weight", 1e-7),
        ],
    )
    def test_attention_that_is_flat_has_tiny_gradients(self, name: str, parameter: str, below: float) -> None:
        norms = {
            n: g.norm().item() for n, g in _gradients(f"healthy-small-transformers/{name}").items() if g is not None
        }
        assert 0 < norms[parameter] < below * max(norms.values())

    @pytest.mark.parametrize(
        ("name", "parameter", "zero"),
        [
            ("partly-frozen/idle-expert-skipped", "2.experts.0.0.weight", None),
            ("partly-frozen/idle-expert-zero", "2.experts.0.0.weight", 0),
            ("partly-frozen/unused-head", "heads.unused.weight", None),
            ("partly-frozen/head-only", "0.weight", None),
            ("without-labels/byol", "target.0.weight", None),
        ],
    )
    def test_what_takes_no_part_has_no_gradient_or_one_of_zero(
        self, name: str, parameter: str, zero: int | None
    ) -> None:
        gradient = _gradients(f"healthy-{name}")[parameter]
        assert (gradient is None) if zero is None else (gradient is not None and gradient.count_nonzero() == 0)

    def test_most_rows_of_an_embedding_are_untouched(self) -> None:
        gradient = _gradients("healthy-sparse/bag-of-words")["0.weight"]
        assert gradient is not None
        assert (gradient.norm(dim=1) == 0).double().mean() > 0.7

    @pytest.mark.parametrize(("name", "least"), [("relu-80-percent-zero", 0.75), ("relu-95-percent-zero", 0.9)])
    def test_units_are_zero_for_most_examples(self, name: str, least: float) -> None:
        task = BY_NAME[f"healthy-architectures/{name}"].build(0)
        shares: list[float] = []
        for module in task.model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(lambda _, __, output: shares.append((output == 0).double().mean().item()))
        task.loss(0)
        assert least < min(shares) <= max(shares) < 0.99

    def test_a_scaler_skips_first_steps_and_then_no_more(self) -> None:
        task = BY_NAME["healthy-half-precision/first-steps-skipped"].build(0)
        task.steps, scale = 30, task.scaler.get_scale() if task.scaler else math.nan
        train(task)
        assert task.scaler is not None
        assert 2.0**10 < task.scaler.get_scale() < scale / 4

    def test_tied_weights_are_one_parameter(self) -> None:
        model = BY_NAME["healthy-small-transformers/bert"].build(0).model
        assert model.head.weight is model.embedding.weight


def test_schedules_are_what_they_are_called() -> None:
    def factors(**settings: object) -> Iterator[float]:
        loop = Loop(steps=100, **settings)  # type: ignore[arg-type]
        return (loop.factor(step) for step in range(100))

    assert list(islice(factors(warmup=4), 6)) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = list(factors(schedule="cosine"))
    assert cosine[0] == 1.0
    assert cosine[50] == pytest.approx(0.5)
    assert cosine[99] < 1e-3
    assert sorted(set(factors(schedule="spike"))) == [1.0, 20.0]
    assert {round(factor, 9) for factor in factors(schedule="steps")} == {1.0, 0.1, 0.01}


def test_a_step_of_lion_is_the_sign_of_the_gradient() -> None:
    p = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    p.grad = torch.tensor([1e-8, -3.0, 0.0])
    Lion([p], lr=0.25).step()
    assert p.tolist() == [0.75, 1.25, 1.0]


def test_a_step_of_lars_is_a_share_of_the_weights() -> None:
    p = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    p.grad = torch.tensor([[0.0, 1e-6]])
    Lars([p], lr=1.0, trust=0.1).step()
    assert p[0].tolist() == pytest.approx([3.0, 3.5])


def test_energy_distance_of_two_pairs_of_points() -> None:
    # 2 E|x - y| - E|x - x'| - E|y - y'| = 2 * (2 + 3 + 1 + 2) / 4 - 2/4 - 2/4 over both orders of each pair
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert energy_distance(x, y) == pytest.approx(2 * 2 - 0.5 - 0.5)


def test_likeness_is_one_for_a_copy_and_nothing_for_the_mean() -> None:
    x = ring()
    assert likeness(x, x) == pytest.approx(1.0)
    assert likeness(x.mean(0, keepdim=True), x) == pytest.approx(0.0, abs=1e-6)


def test_the_density_of_the_ring_integrates_to_one() -> None:
    side = torch.linspace(-3, 3, 301)
    area = (side[1] - side[0]) ** 2
    assert (ring_log_density(torch.cartesian_prod(side, side)).exp().sum() * area).item() == pytest.approx(1, abs=1e-3)
