"""How much of what there is to predict the outputs miss, by what the loss asks of them: its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 16
"""Classes up to which the error is that of the probabilities; of more, the right one has little of them for long, and
it is that of their logarithms."""

CLASSES = 128
"""Up to which it is known: letters, not words, of which a batch holds few."""

EACH = 8
"""Examples for each class that occurs, from which is known how often it does."""

MOST = 1 << 20
"""Elements that are looked at, from the first example on."""

TOLERANCE = 1e-3
"""Share of the gradient's square that may be otherwise: bfloat16 rounds to 2e-5 of it."""

ONE_SIZE = 0.05
"""Spread of the errors' sizes, relative to their mean, up to which they have one."""


@torch.no_grad()
def output_error(outputs: Tensor, gradient: Tensor) -> Tensor:
    """0-dim, what the predicted probabilities miss, relative to what the best constant prediction does.

    The gradient of a cross entropy with respect to its logits is p - y times a number that is the same for all
    examples: the softmax p is known from the outputs, so the classes y are known from the gradient, and whether it was
    such a loss. 1 is what knowing how often each class occurs amounts to, and 0 is all there is to know. It is the root
    mean square error of the probabilities of up to FEW classes, and the cross entropy itself of more. NaN for other
    losses, for more than CLASSES classes, and for a batch of a single class. Nothing waits for the device.

    Args:
        outputs: logits [N, C], [N, C, ...] or [N, ..., C] of a cross entropy, also of one of their mean over all
            places, or of any shape of a binary one.
        gradient: of the loss with respect to them.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
        >>> torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
        >>> y, p = torch.eye(3)[:2], logits.detach().softmax(1)
        >>> constant = torch.eye(3)[:2].mean(0)  # of two examples half their scatter is the constant's, so 2 - 1 count
        >>> expected = ((p - y).square().sum() / (2 * (constant - y).square().sum())) ** 0.5
        >>> round(float(output_error(logits, logits.grad) / expected), 4)
        1.0
    """
    rows = max(1, MOST // max(1, outputs[:1].numel()))
    z, g = outputs[:rows].float(), gradient[:rows].float()
    found = torch.full((), torch.nan, device=z.device)
    if not z.numel():
        return found
    last = z.ndim - 1
    for dim in {1, last} if z.ndim > 1 else ():
        if 2 <= z.shape[dim] <= CLASSES:
            z_last, g_last = z.movedim(dim, -1), g.movedim(dim, -1)
            found = torch.fmin(found, _of_classes(z_last.flatten(0, -2), g_last.flatten(0, -2)))
            if z.ndim > 2:
                places = list(range(1, last))
                found = torch.fmin(found, _of_classes(z_last.mean(places), g_last.sum(places)))
    columns = z.shape[-1] if z.ndim > 1 else 1
    return torch.fmin(found, _of_labels(z.reshape(-1, columns), g.reshape(-1, columns)))


def error_of_classes(z: Tensor, y: Tensor, told: Tensor) -> Tensor:
    """0-dim, of the softmax of ``z`` [N, C] for the classes ``y`` [N, C], of the examples ``told`` [N]."""
    number = told.sum()
    often = torch.where(told[:, None], y, 0.0).sum(0) / number
    if z.shape[1] <= FEW:
        wrong = torch.where(told[:, None], z.softmax(1) - y, 0.0)
        return _of_squares(wrong, number, 1 - often.square().sum())
    surprise = torch.where(told[:, None] & (y > 0), -y * z.log_softmax(1), 0.0).sum(1)
    return _of_logarithms(surprise.sum() / number, number, often)


def error_of_labels(z: Tensor, y: Tensor, told: Tensor) -> Tensor:
    """0-dim, of the sigmoid of ``z`` [N, K] for the labels ``y`` [N, K]; 0 where one is not ``told`` [N, K]."""
    often, number = y.mean(0), torch.full((), float(len(z)), device=z.device)
    return _of_squares(torch.where(told, z.sigmoid() - y, 0.0), number, (often * (1 - often)).sum())


def _of_classes(z: Tensor, g: Tensor) -> Tensor:
    """Of a softmax: [N, C] each. An example that is masked, or told to the last bit, has no gradient."""
    p, asked = z.softmax(1), g.amin(1) < 0
    y = torch.where(asked[:, None], torch.zeros_like(p).scatter_(1, g.argmin(1, keepdim=True), 1.0), p)
    return _where_asked(torch.where(asked[:, None], p - y, 0.0), g, error_of_classes(z, y, asked | (p.amax(1) == 1)))


def _of_labels(z: Tensor, g: Tensor) -> Tensor:
    """Of sigmoids: [N, K] each, N examples of K labels."""
    told = g != 0
    wrong = torch.where(told, z.sigmoid() - (g < 0).float(), 0.0)
    size = wrong.abs()  # where it is one, the gradient is a sign, as that of an absolute error
    wrong = torch.where(size.std(correction=0) > ONE_SIZE * size.mean(), wrong, torch.nan)
    return _where_asked(wrong, g, error_of_labels(z, torch.where(told, g < 0, z > 0).float(), told))


def _of_squares(wrong: Tensor, number: Tensor, scatter: Tensor) -> Tensor:
    """Of few examples the scatter is too small by 1 / number."""
    return (wrong.square().sum() / number / (scatter * number / (number - 1))).sqrt()


def _of_logarithms(surprise: Tensor, number: Tensor, often: Tensor) -> Tensor:
    """Of few examples the entropy is too small by (classes - 1) / (2 number).

    Source: Miller, "Note on the bias of information estimates", 1955.
    """
    classes = (often * number > 0.5).sum()
    entropy = torch.special.entr(often).sum() + (classes - 1) / (2 * number)
    return torch.where(number >= EACH * classes, surprise / entropy, torch.nan)


def _where_asked(wrong: Tensor, g: Tensor, error: Tensor) -> Tensor:
    """``error``, NaN where ``g`` is no multiple of ``wrong``."""
    factor = (g * wrong).sum() / wrong.square().sum()
    rest = (g - factor * wrong).square().sum() / g.square().sum()
    return torch.where((factor > 0) & (rest < TOLERANCE) & torch.isfinite(error), error, torch.nan)
