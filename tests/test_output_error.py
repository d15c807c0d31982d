"""output_error() against the probabilities and the classes, which it is not given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gradwatch.output_error import CLASSES, EACH, output_error
from tests.tensors import normal

N, C = 64, 10
LABELS = torch.arange(N) ** 2 % C


def measured(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> float:
    logits = logits.detach().clone().requires_grad_()
    loss(logits).backward()
    assert logits.grad is not None
    return float(output_error(logits, logits.grad))


def expected(p: Tensor, y: Tensor) -> float:
    """The error of p [N, C], relative to that of the classes' shares, whose scatter is taken with N - 1."""
    p, y = p.double(), y.double()
    scatter = (y - y.mean(0)).square().sum() / (len(y) - 1)
    return float(((p - y).square().sum() / len(y) / scatter).sqrt())


def one_hot(labels: Tensor, classes: int = C) -> Tensor:
    return functional.one_hot(labels, classes)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("weight", [1.0, 1e-6, 65536.0])
def test_of_a_cross_entropy(scale: float, weight: float) -> None:
    logits = scale * normal(N, C)
    found = measured(logits, lambda z: weight * functional.cross_entropy(z, LABELS))
    assert found == pytest.approx(expected(logits.softmax(1), one_hot(LABELS)), rel=1e-3)


def test_knowing_how_often_each_class_occurs_is_one_and_all_is_zero() -> None:
    often = one_hot(LABELS).float().mean(0)
    constant = measured(often.clamp(1e-9).log().expand(N, C), lambda z: functional.cross_entropy(z, LABELS))
    assert constant == pytest.approx(1.0, abs=0.01)
    assert measured(9.0 * one_hot(LABELS), lambda z: functional.cross_entropy(z, LABELS)) < 0.01


LETTERS = torch.arange(600) ** 2 % 40  # of which 12 occur


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_of_many_classes_by_the_cross_entropy_itself(scale: float) -> None:
    logits, often = scale * normal(600, 40), LETTERS.bincount(minlength=40).double() / 600
    entropy = torch.special.entr(often).sum() + (often.count_nonzero() - 1) / 1200  # Miller's correction
    found = measured(logits, lambda z: functional.cross_entropy(z, LETTERS))
    assert found == pytest.approx(float(functional.cross_entropy(logits.double(), LETTERS) / entropy), rel=1e-4)


def test_of_many_classes_knowing_how_often_each_occurs_is_one() -> None:
    """On fresh examples: those by which the shares are known are told better than that."""
    often = (0.1 * normal(40, seed=1)).exp().softmax(0)
    found = []
    for seed in range(20):
        drawn = torch.multinomial(often, 2000, replacement=True, generator=torch.Generator().manual_seed(seed))
        found.append(measured(often.log().expand(2000, 40), lambda z, y=drawn: functional.cross_entropy(z, y)))  # type: ignore[misc]
    assert sum(found) / 20 == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_of_many_classes_the_masked_do_not_count(scale: float) -> None:
    logits, masked = scale * normal(600, 40), torch.where(torch.arange(600) < 100, -100, LETTERS)
    found = measured(logits, lambda z: functional.cross_entropy(z, masked))
    alone = measured(logits[100:], lambda z: functional.cross_entropy(z, LETTERS[100:]))
    assert found == pytest.approx(alone, rel=1e-4)


def test_of_too_few_examples_of_many_classes_it_is_not_known() -> None:
    y = torch.arange(40).repeat(EACH)
    enough = measured(normal(len(y), 40), lambda z: functional.cross_entropy(z, y))
    too_few = measured(normal(len(y) - 1, 40), lambda z: functional.cross_entropy(z, y[1:]))
    assert torch.tensor([enough, too_few]).isnan().tolist() == [False, True]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_of_the_examples_that_are_not_masked(reduction: str) -> None:
    logits, masked = normal(N, C), torch.where(torch.arange(N) < 20, -100, LABELS)
    found = measured(logits, lambda z: functional.cross_entropy(z, masked, reduction=reduction))
    assert found == pytest.approx(expected(logits[20:].softmax(1), one_hot(LABELS[20:])), rel=1e-3)


def test_of_sequences_and_of_images() -> None:
    words, y = normal(8, 5, 7), torch.arange(40).view(8, 5) % 7
    found = measured(words, lambda z: functional.cross_entropy(z.transpose(1, 2), y))
    assert found == pytest.approx(expected(words.flatten(0, 1).softmax(1), one_hot(y.flatten(), 7)), rel=1e-3)
    image, y = normal(4, 5, 3, 3), torch.arange(36).view(4, 3, 3) % 5
    found = measured(image, lambda z: functional.cross_entropy(z, y))
    p = image.movedim(1, -1).reshape(-1, 5).softmax(1)
    assert found == pytest.approx(expected(p, one_hot(y.flatten(), 5)), rel=1e-3)


def test_of_logits_that_are_averaged_over_places() -> None:
    words, image = normal(N, 6, C), normal(N, C, 3, 2)
    for logits, places in ((words, [1]), (image, [2, 3])):
        found = measured(logits, lambda z, places=places: functional.cross_entropy(z.mean(places), LABELS))  # type: ignore[misc]
        assert found == pytest.approx(expected(logits.mean(places).softmax(1), one_hot(LABELS)), rel=1e-3)


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 3)])
def test_of_a_binary_cross_entropy(shape: tuple[int, ...]) -> None:
    logits, y = normal(*shape), (normal(*shape, seed=1) > 0.5).float()
    found = measured(logits, lambda z: functional.binary_cross_entropy_with_logits(z, y))
    assert found == pytest.approx(expected(logits.sigmoid().view(N, -1), y.view(N, -1)), rel=1e-3)
    by_module = measured(logits, lambda z: functional.binary_cross_entropy(z.sigmoid(), y))
    assert by_module == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_other_precisions(dtype: torch.dtype) -> None:
    logits = normal(N, C).to(dtype)
    found = measured(logits, lambda z: functional.cross_entropy(z, LABELS))
    assert found == pytest.approx(expected(logits.softmax(1), one_hot(LABELS)), rel=0.02)


ADVANTAGE = normal(N)

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "squares": lambda z: functional.mse_loss(z, normal(N, C, seed=1)),
    "squares of classes": lambda z: functional.mse_loss(z, one_hot(LABELS).float()),
    "absolute": lambda z: functional.l1_loss(z, normal(N, C, seed=1)),
    "root": lambda z: functional.mse_loss(z, normal(N, C, seed=1)).sqrt(),
    "policy gradient": lambda z: -(z.log_softmax(1)[torch.arange(N), LABELS] * ADVANTAGE).mean(),
    "policy gradient of rewards": lambda z: -(z.log_softmax(1)[torch.arange(N), LABELS] * ADVANTAGE.abs()).mean(),
    "margin": lambda z: functional.multi_margin_loss(z, LABELS),
    "temperature": lambda z: functional.cross_entropy(z / 3, LABELS),
    "one class": lambda z: functional.cross_entropy(z, torch.zeros(N, dtype=torch.long)),
    "sum": lambda z: z.sum(),
    "minus a sum": lambda z: -z.sum(),
    "absolute, of small outputs": lambda z: functional.l1_loss(z / 1e3, 1e-3 * normal(N, C, seed=1)),
    "critic": lambda z: z[: N // 2].mean() - z[N // 2 :].mean(),
    "nothing": lambda z: 0.0 * z.sum(),
    "inf": lambda z: float("inf") * z.sum(),
    "NaN": lambda z: float("nan") * z.sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_other_losses_are_not_known(name: str) -> None:
    assert torch.tensor(measured(normal(N, C), LOSSES[name])).isnan()


def test_many_classes_and_no_examples_are_not_known() -> None:
    many = measured(normal(N, CLASSES + 1), lambda z: functional.cross_entropy(z, LABELS))
    assert torch.tensor(many).isnan()
    for shape in ((0, 3), (1, 3), (0,), (3, 0)):
        assert output_error(torch.zeros(shape), torch.zeros(shape)).isnan()


@pytest.mark.parametrize("classes", [4, 20])
def test_a_class_that_is_ruled_out_and_examples_that_are_masked(classes: int) -> None:
    """By a logit of -inf, and by the label to be ignored, whose logits may be anything."""
    labels = 1 + torch.arange(400) % (classes - 1)
    logits = normal(400, classes)
    logits[:, 0] = -torch.inf
    reference = measured(logits[50:], lambda z: functional.cross_entropy(z, labels[50:]))
    logits[:50] = torch.nan
    found = measured(logits, lambda z: functional.cross_entropy(z[50:], labels[50:]))
    assert found == pytest.approx(reference, rel=1e-3)
