"""Tensors to measure, and their norm by NumPy in float64."""

import numpy as np
import torch

from tests.models import as_float64

NAN, INF = float("nan"), float("inf")


def reference(tensor: torch.Tensor) -> float:
    return float(np.linalg.norm(as_float64(tensor).reshape(-1)))


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sparse(*rows: int) -> torch.Tensor:
    """A sparse gradient with an entry for each of ``rows``, repeated ones included."""
    return torch.sparse_coo_tensor(torch.tensor([rows]), normal(len(rows), 3), (10, 3), check_invariants=True)
