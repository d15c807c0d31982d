"""loss_mismatch() against losses whose mistake is known; it is given outputs and their gradient alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isnan

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradwatch.loss_mismatch import loss_mismatch
from gradwatch.output_error import CLASSES, output_error
from gradwatch.records import MISTAKES
from tests.tensors import normal

N, C = 64, 10
DIAGONAL = torch.arange(C)
LABELS = torch.arange(N) ** 2 % C
ONE_HOT = F.one_hot(LABELS, C).float()
REWARDS = (torch.arange(N) % 3 > 0).float()
WEIGHTS = torch.linspace(0.1, 2.0, C)
Loss = Callable[[Tensor], Tensor]

MISTAKEN: dict[str, tuple[str, Loss]] = {
    "softmax": ("softmax", lambda z: F.cross_entropy(z.softmax(1), LABELS)),
    "sigmoid": ("sigmoid", lambda z: F.cross_entropy(z.sigmoid(), LABELS)),
    "tanh": ("tanh", lambda z: F.cross_entropy(z.tanh(), LABELS)),
    "relu": ("relu", lambda z: F.cross_entropy(z.relu(), LABELS)),
    "softmax, weighted": ("softmax", lambda z: F.cross_entropy(z.softmax(1), LABELS, weight=WEIGHTS)),
    "sigmoid, weighted": ("sigmoid", lambda z: F.cross_entropy(z.sigmoid(), LABELS, weight=WEIGHTS)),
    "negated": ("sign", lambda z: -F.cross_entropy(z, LABELS)),
    "binary, sigmoid": ("sigmoid", lambda z: F.binary_cross_entropy_with_logits(z.sigmoid(), ONE_HOT)),
    "binary, tanh": ("tanh", lambda z: F.binary_cross_entropy_with_logits(z.tanh(), ONE_HOT)),
    "binary, relu": ("relu", lambda z: F.binary_cross_entropy_with_logits(z.relu(), ONE_HOT)),
    "binary, weighted": (
        "sigmoid",
        lambda z: F.binary_cross_entropy_with_logits(z.sigmoid(), ONE_HOT, pos_weight=torch.tensor(5.0)),
    ),
    "binary, labels of 1 and -1": ("labels", lambda z: F.binary_cross_entropy_with_logits(z, 2 * ONE_HOT - 1)),
    "of outputs that are no log-probabilities": ("raw", lambda z: F.nll_loss(z, LABELS)),
    "of probabilities": ("probabilities", lambda z: F.nll_loss(z.softmax(1), LABELS)),
    "of those, weighted": ("probabilities", lambda z: F.nll_loss(z.softmax(1), LABELS, weight=WEIGHTS)),
    "over the examples": ("examples", lambda z: F.nll_loss(z.log_softmax(0), LABELS)),
    "softmax over the examples": ("softmax of examples", lambda z: F.cross_entropy(z.softmax(0), LABELS)),
    "binary, negated": ("sign", lambda z: -F.binary_cross_entropy_with_logits(z, ONE_HOT)),
}

FINE: dict[str, Loss] = {
    "cross entropy": lambda z: F.cross_entropy(z, LABELS),
    "of log-probabilities": lambda z: F.cross_entropy(z.log_softmax(1), LABELS),
    "NLL of log-probabilities": lambda z: F.nll_loss(z.log_softmax(1), LABELS),
    "smoothed": lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.1),
    "weighted": lambda z: F.cross_entropy(z, LABELS, weight=WEIGHTS),
    "tempered": lambda z: F.cross_entropy(z / 4, LABELS),
    "some ignored": lambda z: F.cross_entropy(z, LABELS.where(LABELS > 3, -100)),
    "focal": lambda z: (
        (1 - z.softmax(1)[range(N), LABELS]) ** 2 * F.cross_entropy(z, LABELS, reduction="none")
    ).mean(),
    "distilled": lambda z: F.kl_div(z.log_softmax(1), (3 * ONE_HOT).softmax(1), reduction="batchmean"),
    "of distances": lambda z: F.cross_entropy(-z, LABELS),
    "of classes that it is not": lambda z: -torch.log1p(-z.softmax(1)[range(N), LABELS]).mean(),
    "rewards of -1 and 0": lambda z: (REWARDS * z.log_softmax(1)[range(N), LABELS]).mean(),
    "squared error": lambda z: F.mse_loss(z, ONE_HOT),
    "squared error behind a softmax": lambda z: F.mse_loss(z.softmax(1), ONE_HOT),
    "squared error behind a sigmoid": lambda z: F.mse_loss(z.sigmoid(), ONE_HOT),
    "squared error behind a tanh": lambda z: F.mse_loss(z.tanh(), ONE_HOT),
    "squared error behind a tanh, of signs": lambda z: F.mse_loss(z.tanh(), 2 * ONE_HOT - 1),
    "squared error behind a relu": lambda z: F.mse_loss(z.relu(), ONE_HOT),
    "absolute error": lambda z: F.l1_loss(z, ONE_HOT),
    "margins": lambda z: F.multi_margin_loss(z, LABELS),
    "logistic, of signs": lambda z: F.soft_margin_loss(z, 2 * ONE_HOT - 1),
    "binary": lambda z: F.binary_cross_entropy_with_logits(z, ONE_HOT),
    "binary, weighted": lambda z: F.binary_cross_entropy_with_logits(z, ONE_HOT, pos_weight=torch.tensor(5.0)),
    "binary behind a sigmoid": lambda z: F.binary_cross_entropy(z.sigmoid(), ONE_HOT),
    "binary, some masked": lambda z: F.binary_cross_entropy_with_logits(
        z, ONE_HOT, weight=(normal(N, C, seed=1) > 0).float()
    ),
    "a generator's, that wants the discriminator to be wrong": lambda z: -F.binary_cross_entropy_with_logits(z, 0 * z),
    "a critic's": lambda z: z[: N // 2].mean() - z[N // 2 :].mean(),
    "of a huber on the values of some actions": lambda z: F.huber_loss(z[range(N), LABELS], 3 * normal(N)),
    "squared error of one action each": lambda z: F.mse_loss(z[range(N), LABELS], normal(N)),
    "of an average over the examples": lambda z: F.cross_entropy(z.mean(0), torch.tensor(3)),
    "of attention over the examples": lambda z: (z.softmax(0) * normal(N, C, seed=2)).sum(0).square().mean(),
    "contrasted one way": lambda z: F.cross_entropy(z[:C].T, DIAGONAL),
    "contrasted both ways": lambda z: F.cross_entropy(z[:C], DIAGONAL) + F.cross_entropy(z[:C].T, DIAGONAL),
}


def told(logits: Tensor, loss: Loss) -> tuple[str, float]:
    logits = logits.detach().clone().requires_grad_()
    loss(logits).backward()
    assert logits.grad is not None
    mistake, error = (float(found) for found in loss_mismatch(logits, logits.grad))
    assert isnan(mistake) or mistake == int(mistake)
    assert isnan(mistake) == isnan(error) or not isnan(mistake)
    return "" if isnan(mistake) else MISTAKES[int(mistake)], error


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("weight", [1.0, 1e-6, 65536.0])
@pytest.mark.parametrize(("mistake", "loss"), MISTAKEN.values(), ids=MISTAKEN)
def test_a_mistake_is_told_whatever_the_scale_of_the_loss(
    mistake: str, loss: Loss, weight: float, scale: float
) -> None:
    assert told(scale * normal(N, C), lambda z: weight * loss(z))[0] == mistake


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3, 0.01, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("loss", FINE.values(), ids=FINE)
def test_what_is_none_is_not(loss: Loss, scale: float) -> None:
    assert told(scale * normal(N, C), loss)[0] == ""


@given(seed=st.integers(0, 10**6), sure=st.floats(0.0, 40.0), noise=st.floats(0.0, 5.0))
def test_nor_is_one_of_which_all_is_learned(seed: int, sure: float, noise: float) -> None:
    """What is left of the gradient then is rounding."""
    z = sure * ONE_HOT + noise * normal(N, C, seed=seed)
    assert told(z, lambda z: F.cross_entropy(z, LABELS))[0] == ""
    assert told(z - sure / 2, lambda z: F.binary_cross_entropy_with_logits(z, ONE_HOT))[0] == ""


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), classes=st.integers(2, 4), scale=st.floats(1e-3, 10.0))
def test_nor_is_a_cross_entropy_of_a_few_examples(seed: int, rows: int, classes: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    assert told(z, lambda z: F.cross_entropy(z, labels))[0] == ""
    assert told(z, lambda z: F.binary_cross_entropy_with_logits(z, F.one_hot(labels, classes).float()))[0] == ""


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "tanh", "negated"])
def test_the_error_is_that_of_the_outputs_as_logits(name: str) -> None:
    """Which output_error() gives where the loss is right."""
    logits = 2 * ONE_HOT + normal(N, C)
    right = logits.clone().requires_grad_()
    F.cross_entropy(right, LABELS).backward()
    assert right.grad is not None
    assert told(logits, MISTAKEN[name][1])[1] == pytest.approx(float(output_error(right, right.grad)), rel=1e-4)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_of_one_output(shape: tuple[int, ...]) -> None:
    y = (normal(*shape) > 0).float()
    for mistake, loss in (
        ("sigmoid", lambda z: F.binary_cross_entropy_with_logits(z.sigmoid(), y)),
        ("labels", lambda z: F.binary_cross_entropy_with_logits(z, 2 * y - 1)),
        ("", lambda z: F.binary_cross_entropy_with_logits(z, y)),
        ("", lambda z: F.mse_loss(z, y)),
    ):
        assert told(normal(*shape, seed=1), loss)[0] == mistake


def test_of_targets_that_broadcast() -> None:
    z, targets = normal(N, 1), normal(N, seed=1) + 3.217
    assert told(z, lambda z: (z - targets).square().mean())[0] == "broadcast"
    assert told(z, lambda z: (z[:, 0] - targets).square().mean())[0] == ""
    assert told(1e-3 * z, lambda z: F.binary_cross_entropy_with_logits(z, 0 * z))[0] == ""


def test_of_every_place() -> None:
    images, labels = normal(4, 3, 5, 6), torch.arange(4 * 5 * 6).view(4, 5, 6) % 3
    assert told(images, lambda z: F.cross_entropy(z.softmax(1), labels))[0] == "softmax"
    assert told(images.movedim(1, -1), lambda z: F.cross_entropy(z.sigmoid().movedim(-1, 1), labels))[0] == "sigmoid"


def test_in_half_precision_it_is_told_where_it_is_plain() -> None:
    z, scale = (3 * normal(N, C)).to(torch.float16), 1024.0
    assert told(z, lambda z: scale * F.cross_entropy(z.float().softmax(1), LABELS))[0] == "softmax"
    for dtype in (torch.float16, torch.bfloat16):
        assert told(normal(N, C).to(dtype), lambda z: F.cross_entropy(z.float(), LABELS))[0] == ""
    assert told(z - 9, lambda z: 1e-6 * F.cross_entropy(z.float(), LABELS))[0] == ""  # most of it underflows


@pytest.mark.parametrize(
    ("z", "g"),
    [
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        (torch.zeros(4, 3), torch.zeros(4, 3)),
        (torch.full((4, 3), torch.nan), torch.ones(4, 3)),
        (torch.full((4, 3), torch.inf), torch.ones(4, 3)),
        (normal(4, 3), torch.full((4, 3), torch.nan)),
        (normal(1), normal(1)),
        (normal(4, CLASSES + 1), normal(4, CLASSES + 1, seed=1)),
        (torch.zeros(1, 3, 200, 200), torch.ones(1, 3, 200, 200)),  # an example that is too large to be looked at
    ],
)
def test_nothing_is_told_of_nothing(z: Tensor, g: Tensor) -> None:
    assert isnan(loss_mismatch(z, g).mistake)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [((1, 2), "labels"), ((0, 5), "labels"), ((-1, 0), "labels"), ((0, 1), ""), ((0.1, 0.9), ""), ((0.5, 1.7), "")],
)
def test_labels_that_are_other_whole_numbers(reduction: str, labels: tuple[float, float], expected: str) -> None:
    y = torch.tensor(labels, dtype=torch.float32)[(normal(32, 1, seed=1) > 0).long()]
    for z in (normal(32, 1), normal(32)):
        loss = partial(F.binary_cross_entropy_with_logits, target=y.view_as(z), reduction=reduction)
        assert told(z, loss)[0] == expected


def test_what_a_layer_gives_may_be_log_probabilities() -> None:
    """As of a tree, whose leaves hold probabilities."""
    leaves = (normal(N, C).softmax(1) + 1e-8).log()
    assert told(leaves, lambda z: F.nll_loss(z, LABELS))[0] == ""
    assert told(leaves + 1.0, lambda z: F.nll_loss(z, LABELS))[0] == "raw"


def test_large_targets_of_a_squared_error_are_no_labels() -> None:
    """Beyond ten million float32 has whole numbers only."""
    targets = 6e4 * normal(32, 1, seed=1) + 2e5
    assert told(normal(32, 1), lambda z: F.mse_loss(6e4 * z + 2e5, targets))[0] == ""


@pytest.mark.parametrize("size", [0.0, 1e-3, 30.0])
@pytest.mark.parametrize("weight", [3.0, 5.0])
def test_weights_of_examples_are_no_labels(size: float, weight: float) -> None:
    y = (normal(32, 1, seed=1) > 0).float()
    pos_weight = torch.tensor(weight)
    assert told(size * normal(32, 1), lambda z: weight * F.binary_cross_entropy_with_logits(z, y))[0] == ""
    assert told(normal(32, 1), lambda z: F.binary_cross_entropy_with_logits(z, y, pos_weight=pos_weight))[0] == ""
    assert told(size * normal(32, 1), lambda z: F.l1_loss(z, 100 * y))[0] == ""
