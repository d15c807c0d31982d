"""What the recipes are made of, against closed forms and numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks.detection import data
from benchmarks.detection.recipes import cnn, mlp, rnn, transformer
from benchmarks.detection.recipes.initialisation import initialise
from benchmarks.detection.recipes.loops import batch_order
from benchmarks.detection.recipes.losses import accuracy, poisson, r_squared, softmax_by_hand


class TestData:
    @pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
    def test_columns_are_standardised_or_constant(self, name: str) -> None:
        x = data.packaged(name).x.double()
        assert x.mean(dim=0).abs().max() < 1e-5
        spread = x.std(dim=0)
        assert ((spread - 1).abs() < 1e-5).logical_or(spread == 0).all()

    def test_raw_data_is_in_its_own_units(self) -> None:
        assert data.packaged("wine", raw=True).x.max() == 1680  # proline
        assert data.packaged("diabetes", raw=True).y.mean() == pytest.approx(152.13, abs=0.01)

    def test_trivial_answers(self) -> None:
        assert data.packaged("iris").trivial == pytest.approx(1 / 3)
        assert data.packaged("wine").trivial == pytest.approx(71 / 178)
        assert data.packaged("diabetes").trivial == 0

    def test_one_image_among_the_pixels_is_blank(self) -> None:
        x = data.pixels().x
        assert (x.sum(dim=1) == 0).nonzero().tolist() == [[0]]
        assert (x.min(), x.max()) == (0, 1)

    def test_answers_of_token_tasks(self) -> None:
        copy, pair, bits = data.copy_first(), data.first_and_last(), data.parity(bits=3)
        assert torch.equal(copy.y, copy.x[:, 0])
        assert torch.equal(pair.y, torch.where(pair.x[:, 0] >= 2, 4, 0) + pair.x[:, -1])
        assert torch.equal(bits.y, bits.x[:, 0] ^ bits.x[:, 1] ^ bits.x[:, 2])

    def test_a_marked_token_is_the_answer(self) -> None:
        found = data.marked()
        assert ((found.x >= 6).sum(dim=1) == 1).all()
        assert torch.equal(found.x.max(dim=1).values - 6, found.y)

    def test_two_numbers_are_marked_and_their_sum_is_the_answer(self) -> None:
        found = data.adding(length=10)
        numbers, marks = found.x.unbind(dim=2)
        assert (marks[:, :5].sum(dim=1) == 1).all()
        assert (marks[:, 5:].sum(dim=1) == 1).all()
        sums = (numbers * marks).sum(dim=1)
        torch.testing.assert_close(found.y[:, 0], (sums - sums.mean()) / sums.std())

    def test_scaling_leaves_the_cached_data_alone(self) -> None:
        plain = data.packaged("iris").x[0].clone()
        scaled = data.packaged("iris").scaled(inputs=10.0, feature=3.0).x[0]
        torch.testing.assert_close(scaled, plain * torch.tensor([30.0, 10.0, 10.0, 10.0]))
        assert torch.equal(data.packaged("iris").x[0], plain)


@pytest.mark.parametrize(
    ("scheme", "std"),
    [("he", math.sqrt(2 / 300)), ("lecun", math.sqrt(1 / 300)), ("xavier", math.sqrt(2 / 500)), ("normal", 1.0)],
)
def test_standard_deviation_of_a_scheme_times_its_gain(scheme: str, std: float) -> None:
    torch.manual_seed(0)
    weight = torch.empty(200, 300)
    initialise(weight, scheme, gain=0.5)
    assert weight.std().item() == pytest.approx(0.5 * std, rel=0.02)


@pytest.mark.parametrize("scheme", ["orthogonal", "identity"])
def test_radius_of_recurrent_weights(scheme: str) -> None:
    model = rnn(0, init=scheme, radius=0.7).model
    values = torch.linalg.eigvals(model.core.weight_hh_l0.detach().double())
    torch.testing.assert_close(values.abs(), torch.full((32,), 0.7, dtype=torch.float64), rtol=1e-5, atol=0)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="uniform"):
        initialise(torch.empty(2, 2), "uniform")


def test_batches_take_every_example_once_before_any_again() -> None:
    order = batch_order(examples=10, batch=5, steps=5, seed=0)
    assert order.shape == (5, 5)
    assert sorted(order[:2].flatten().tolist()) == sorted(order[2:4].flatten().tolist()) == list(range(10))
    assert torch.equal(order, batch_order(10, 5, 5, seed=0))
    assert not torch.equal(order, batch_order(10, 5, 5, seed=1))


class TestLosses:
    def test_softmax_by_hand_is_cross_entropy_until_exp_overflows(self) -> None:
        logits, classes = torch.tensor([[1.0, 2.0, -1.0], [0.0, 5.0, 3.0]]), torch.tensor([2, 1])
        torch.testing.assert_close(softmax_by_hand(logits, classes), F.cross_entropy(logits, classes))
        assert softmax_by_hand(logits + 100, classes).isnan()

    def test_poisson(self) -> None:
        assert poisson(torch.tensor([0.0, math.log(3)]), torch.tensor([2.0, 1.0])).item() == pytest.approx(
            (1 + 3 - math.log(3)) / 2
        )

    def test_accuracy(self) -> None:
        outputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        assert accuracy(outputs, torch.tensor([0, 1, 1, 1])) == 0.75
        assert math.isnan(accuracy(outputs * math.inf, torch.tensor([0, 1, 1, 1])))

    def test_r_squared(self) -> None:
        values = torch.tensor([1.0, 2.0, 3.0, 4.0])
        assert r_squared(values, values) == 1
        assert r_squared(torch.full((4,), 2.5), values) == 0
        assert r_squared(torch.tensor([1.0, 2.0, 3.0, 6.0]), values) == pytest.approx(1 - 1 / 1.25)


def test_a_recurrent_network_step_by_step_is_the_same_network() -> None:
    for cell in ("tanh", "relu", "gru", "lstm"):
        at_once, stepwise = (rnn(0, cell=cell, length=7, stepwise=step) for step in (False, True))
        torch.testing.assert_close(stepwise.loss(0), at_once.loss(0))


def test_a_fixed_loss_scale_is_taken_out_before_clipping() -> None:
    def gradients(**settings: float) -> list[torch.Tensor]:
        task = mlp(0, **settings)
        task.loss(0).backward()
        assert task.before_step is not None
        task.before_step(0)
        return [p.grad for p in task.model.parameters() if p.grad is not None]

    for plain, scaled in zip(gradients(clip=0.5), gradients(clip=0.5, loss_scale=2.0**10), strict=True):
        torch.testing.assert_close(scaled, plain)
    assert torch.cat([g.flatten() for g in gradients(clip=0.5)]).norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "factors"),
    [({"warmup": 4}, [0.25, 0.5, 0.75, 1.0, 1.0]), ({"schedule": "mild_shock"}, [300.0, 300.0, 300.0, 1.0, 1.0])],
)
def test_learning_rates_at_the_start(settings: dict[str, Any], factors: list[float]) -> None:
    task = mlp(0, lr=0.5, **settings)
    found = []
    for _ in factors:
        found.append(task.optimizer.param_groups[0]["lr"])
        task.optimizer.step()
        task.scheduler.step()
    assert found == pytest.approx([0.5 * factor for factor in factors])


def test_a_metric_leaves_the_model_training_and_its_averages_alone() -> None:
    task = cnn(0, norm="batch")
    averages = {name: value.clone() for name, value in task.model.named_buffers()}
    assert 0 <= task.metric() <= 1
    assert task.model.training
    assert all(torch.equal(value, averages[name]) for name, value in task.model.named_buffers())


def test_autocast_leaves_weights_and_loss_in_single_precision() -> None:
    assert mlp(0, precision="float16").model.head.weight.dtype == torch.float32
    assert mlp(0, precision="float16").loss(0).dtype == torch.float32


def test_a_transformer_without_residual_passes_on_its_branches_alone() -> None:
    block = transformer(0, residual=False, norm=None).model.blocks[0]
    x = torch.randn(2, 8, 32)
    torch.testing.assert_close(block(x), block.mlp(block.attention(x)))
