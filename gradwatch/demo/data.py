"""Real data that comes with a package: 1,797 handwritten digits of 8 x 8 pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor


@dataclass(frozen=True)
class Digits:
    """Images as float32 [N, 64], standardised pixel by pixel, and their labels as int64 [N]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits() -> Digits:
    """A quarter of the digits is for testing; the split is always the same.

    Example:
        >>> digits().train_images.shape, digits().test_images.shape
        (torch.Size([1347, 64]), torch.Size([450, 64]))
    """
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        torch.tensor(images, dtype=torch.float32), torch.tensor(labels), test_size=0.25, random_state=0, stratify=labels
    )
    mean, spread = train.mean(dim=0), train.std(dim=0).clamp(min=1.0)  # some pixels at the border are always 0
    return Digits((train - mean) / spread, train_labels, (test - mean) / spread, test_labels)
