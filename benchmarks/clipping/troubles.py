"""What goes wrong in a run: each changes the loss or the gradients of some steps, the same ones for every policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SPIKES, SPIKE = 0.02, 1000.0
"""Share of the steps whose loss is multiplied, and by how much: bad batches."""

TROUBLES = ("nothing", "spikes", "NaN", "heavy tails")

NANS = (0.3, 0.5, 0.7)
"""Where in the run a step's loss is NaN."""

TAIL = 0.1
"""Size of the noise, relative to the gradient: a Cauchy-distributed multiple of it in a random direction, at each step.
Its mean does not exist, and one step in 64 has noise of more than twice the gradient's own norm."""


def scale(trouble: str, step: int, steps: int, generator: torch.Generator) -> float:
    """What the loss of a step is multiplied by."""
    if trouble == "spikes" and step >= 30:  # every policy with a memory has had its first steps then
        return SPIKE if float(torch.rand((), generator=generator)) < SPIKES else 1.0
    if trouble == "NaN" and step in [int(share * steps) for share in NANS]:
        return float("nan")
    return 1.0


def disturb(trouble: str, model: nn.Module, generator: torch.Generator) -> None:
    """Add to the gradients what the trouble adds."""
    if trouble != "heavy tails":
        return
    gradients: list[Tensor] = [p.grad for p in model.parameters() if p.grad is not None]
    total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    size = TAIL * torch.empty(()).cauchy_(generator=generator).abs() * total / sum(g.numel() for g in gradients) ** 0.5
    for g in gradients:
        g += size * torch.randn(g.shape, generator=generator)
