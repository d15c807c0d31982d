"""Losses by name: PyTorch's own, and the same written out by hand as people do, which is where they break."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def softmax_by_hand(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy without the usual shift by the largest logit: exp overflows beyond 88."""
    powers = logits.exp()
    return -(powers / powers.sum(dim=1, keepdim=True)).gather(1, classes[:, None]).log().mean()


def poisson(rate: Tensor, counts: Tensor) -> Tensor:
    """Negative log-likelihood of Poisson counts whose log rate is the output: exp overflows beyond 88."""
    return (rate.exp() - counts * rate).mean()


def focal(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy that counts what is known already less (Lin et al., 2017)."""
    loss = F.cross_entropy(logits, classes, reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()


def one_hot(outputs: Tensor, classes: Tensor) -> Tensor:
    return F.one_hot(classes, outputs.shape[1]).to(outputs.dtype)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "cross_entropy": F.cross_entropy,
        "cross_entropy_sum": lambda outputs, y: F.cross_entropy(outputs, y, reduction="sum"),
        "label_smoothing": lambda outputs, y: F.cross_entropy(outputs, y, label_smoothing=0.1),
        "nll": lambda outputs, y: F.nll_loss(outputs.log_softmax(1), y),
        "focal": focal,
        "softmax_by_hand": softmax_by_hand,
        "hinge": F.multi_margin_loss,
        "bce": lambda outputs, y: F.binary_cross_entropy_with_logits(outputs, one_hot(outputs, y)),
        "brier": lambda outputs, y: F.mse_loss(outputs.softmax(1), one_hot(outputs, y)),
        "one_hot_mse": lambda outputs, y: F.mse_loss(outputs, one_hot(outputs, y)),
        "mse": F.mse_loss,
        "huber": F.smooth_l1_loss,
        "poisson": poisson,
    }
)


def accuracy(outputs: Tensor, classes: Tensor) -> float:
    """Share of examples whose largest output is the right one; NaN where an output is not finite."""
    if not outputs.isfinite().all():
        return torch.nan
    return (outputs.argmax(dim=1) == classes).double().mean().item()


def r_squared(outputs: Tensor, values: Tensor) -> float:
    """1 - squared error / variance: 1 for perfect answers, 0 for the mean."""
    outputs, values = outputs.double(), values.double()
    return (1 - (outputs - values).square().mean() / values.var(correction=0)).item()
