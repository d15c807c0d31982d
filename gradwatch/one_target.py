"""Whether a squared error holds all outputs against one target, as where targets broadcast against the outputs."""

from __future__ import annotations

import torch
from torch import Tensor

CHOSEN, PRECISE = 20, 0.01
"""What a target for all examples is a multiple of that somebody chose, 1 / 20 up to about 1, and 1 above; but for such
a share of it: 0, 0.9, -1, 25."""

MEASURED = 8
"""Examples from which one target for all of them is no chance."""

SPREAD = 1e-9
"""Share of the outputs' variance that several targets have at least, but for the gradient's rounding."""

EXACT = 1e-3
"""By which the number may be off that of a mean or a sum of squares, or of their halves. It is another where a line is
fitted to what lies on one: what is left of the error is in proportion to the outputs, too."""

OFF = 1e-3
"""Distance of the target from the outputs' mean, relative to their spread, from which it is another than that mean, as
which it is where a spread is to be less."""


def one_target(outputs: Tensor, gradient: Tensor) -> Tensor:
    """0-dim bool, whether the gradient is that of a squared error of one target, which nobody would have chosen.

    It is outputs - targets, times a number that is known. Where targets [N] are subtracted from outputs [N, 1], each
    from each, it is outputs - the targets' mean.

    Args:
        outputs: [N].
        gradient: of the loss with respect to them.

    Example:
        >>> outputs, targets = torch.linspace(0, 1, 9, requires_grad=True), torch.linspace(2, 7.3, 9)
        >>> (outputs[:, None] - targets).square().mean().backward()
        >>> bool(one_target(outputs.detach(), outputs.grad))  # their mean, 4.65
        True
    """
    z, g = outputs - outputs.mean(), gradient - gradient.mean()
    factor = (z * g).sum() / z.square().sum()
    off = gradient.mean() / factor
    target = outputs.mean() - off
    steps = target * torch.where(target.abs() < 1 + 5 / CHOSEN, CHOSEN, 1)
    chosen = (steps - steps.round()).abs() < PRECISE
    rest = (g - factor * z).square().sum() / g.square().sum()
    rounding = (4 * torch.finfo(g.dtype).eps) ** 2 * gradient.square().mean() / g.square().mean()
    apart = off.abs() > OFF * z.square().mean().sqrt()
    n = len(outputs)
    known = [(factor / number - 1).abs() < EXACT for number in (2 / n, 1 / n, 2 * n, n)]
    fits = torch.stack(known).any() & torch.isfinite(target) & (rest < SPREAD + rounding)
    return fits & apart & ~chosen & (len(outputs) >= MEASURED)
