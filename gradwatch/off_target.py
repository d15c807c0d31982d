"""How far off the targets outputs are as a whole, by what a squared error asks of them."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 8
"""Examples from which what they have in common is no chance."""

MOST = 1 << 16
"""Elements that are looked at, from the first example on."""

NEAR = 0.2
"""By which share the gradient per output may be off that of a squared error: 32 outputs that vary as much as their
targets, and have nothing to do with them, stray by as much."""

ONE = 1e-8
"""Share of the error that is not the outputs' own from which there are several targets. One for all is for
:func:`~gradwatch.one_target.one_target`, and may be meant so."""

FAR = 3.0
"""Error from which it is no cross entropy's, which is 1 at most, nor that of standardised targets."""


@torch.no_grad()
def off_target(outputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """0-dim each: the share of a squared error that is the outputs' own scatter, and that which all examples share.

    Its gradient is ``factor * (outputs - targets)``, and of a mean or a sum the factor is known: 2 by the number of
    elements, 2 by that of examples, or 2. Where the outputs vary far more than the targets do, or have nothing to do
    with them, the gradient is that factor times the outputs themselves, and the share is ``v / (1 + v)`` of outputs
    whose variance is ``v`` times that of the targets. A mean prediction would do better from 1/2 on. What all examples
    share is the distance of the outputs' mean from the targets'. 0 where there is no such error, of other losses too;
    NaN of fewer than FEW examples. Nothing waits for the device.

    Args:
        outputs: [N, ...].
        gradient: of the loss with respect to them.

    Example:
        >>> outputs, targets = torch.linspace(-30, 30, 16, requires_grad=True), torch.tensor([1.0, -1.0] * 8)
        >>> (outputs - targets).square().mean().backward()
        >>> scatter, shared = off_target(outputs.detach(), outputs.grad)
        >>> round(float(scatter), 3), round(float(shared), 3)  # their variance is 340 times that of the targets
        (0.997, 0.0)
    """
    examples, elements = len(outputs), gradient.numel()
    nothing = torch.zeros((), device=gradient.device)
    if examples < FEW:
        return nothing + torch.nan, nothing + torch.nan
    rows = max(FEW, MOST // max(1, outputs[:1].numel()))
    z, g = (t[:rows].flatten(1) if t.ndim > 1 else t[:rows, None] for t in (outputs.float(), gradient.float()))
    unit, size = z.abs().amax(), g.abs().amax()  # whose squares may be out of range
    y, e = (z - z.mean(0)) / unit, (g - g.mean(0)) / size
    along, own, asked = (y * e).sum(), y.square().sum(), e.square().sum()
    share, factor = along.square() / (own * asked), along / own * size / unit
    is_error = torch.stack([(factor * n / 2 - 1).abs() < NEAR for n in (elements, examples, 1)]).any()
    scatter = torch.where(is_error & (1 - share > ONE), share, nothing)
    mean_square = (g / size).square().mean()
    shared = (g.mean(0) / size).square().mean() / mean_square
    is_far = mean_square.sqrt() * size * elements / 2 > FAR
    return scatter, torch.where(is_far & (g != g[:1]).any(), shared, nothing)
