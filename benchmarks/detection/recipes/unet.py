"""U-Net on noisy digits: which pixels are ink (Ronneberger et al., 2015), or how much of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.detection.data import packaged
from benchmarks.detection.recipes.loops import Loop, run
from benchmarks.detection.recipes.losses import r_squared
from benchmarks.detection.task import Task

SHOWN = 256


def unet(seed: int, *, segment: bool = True, width: int = 8, **loop: Any) -> Task:
    """Pixels with noise of half their range; the metric is R^2 of the pixels, 0 for the mean.

    Args:
        seed: of weights and batches.
        segment: find where there is more than half the ink, by cross entropy; else remove the noise.
        width: channels at full size.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    clean = (packaged("digits", raw=True).x / 16).view(-1, 1, 8, 8)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    wanted = (clean > 0.5).float() if segment else clean
    model = UNet(width)
    criterion = F.binary_cross_entropy_with_logits if segment else F.mse_loss

    def loss(rows: Tensor) -> Tensor:
        return criterion(model(noisy[rows]), wanted[rows])

    def metric() -> float:
        outputs = model(noisy[:SHOWN])
        return r_squared(outputs.sigmoid() if segment else outputs, wanted[:SHOWN])

    return run(model, seed, Loop(**loop), loss, metric, examples=len(clean))


class UNet(nn.Module):
    """Two halvings and two doublings, with a skip connection at each size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down_1, self.down_2 = _double(1, width), _double(width, 2 * width)
        self.bottom = _double(2 * width, 4 * width)
        self.rise_2, self.rise_1 = (nn.ConvTranspose2d(2 * w, w, 2, 2) for w in (2 * width, width))
        self.up_2, self.up_1 = _double(4 * width, 2 * width), _double(2 * width, width)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        full = self.down_1(x)
        half = self.down_2(self.pool(full))
        up = self.up_2(torch.cat([half, self.rise_2(self.bottom(self.pool(half)))], dim=1))
        return self.head(self.up_1(torch.cat([full, self.rise_1(up)], dim=1)))


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )
