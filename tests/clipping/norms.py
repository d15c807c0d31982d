"""Histories of total norms, and what a policy makes of them."""

import math

import torch

from gradwatch.records import ClipRecord
from gradwatch.stats import measure
from tests.tensors import INF, NAN

HOSTILE = {
    "none": [],
    "one step": [2.0],
    "constant": [3.0] * 150,
    "zeros": [0.0] * 50,
    "zeros first": [0.0] * 50 + [1.0] * 50,
    "one NaN": [1.0] * 30 + [NAN] + [1.0] * 120,
    "one inf": [1.0] * 30 + [INF] + [1.0] * 120,
    "NaN first": [NAN, INF, NAN] + [1.0] * 60,
    "nothing but NaN": [NAN] * 40,
    "repeated spikes": ([1.0] * 9 + [1e4]) * 15,
    "level shift up": [1.0] * 60 + [50.0] * 150,
    "level shift down": [50.0] * 60 + [1.0] * 150,
    "tiny": [1e-30] * 60,
    "huge": [1e30] * 60,
    "from tiny to huge": [1e-30] * 60 + [1e30] * 60,
    "alternating": [1.0, 1000.0] * 75,
}


def noisy(steps: int, spread: float = 0.3, level: float = 1.0, seed: int = 0) -> list[float]:
    """Norms whose logs are normally distributed."""
    generator = torch.Generator().manual_seed(seed)
    return (level * (spread * torch.randn(steps, generator=generator, dtype=torch.float64)).exp()).tolist()


def clip(policy, norm: float) -> tuple[ClipRecord, float]:
    """What ``policy`` says of a gradient of that norm, and the norm that it leaves."""
    gradient = torch.tensor([norm], dtype=torch.float64)
    record = policy.clip_([gradient], measure([gradient]))
    return record, float(gradient.abs())


def run(policy, norms) -> list[ClipRecord]:
    return [clip(policy, norm)[0] for norm in norms]


def limits(policy, norms) -> list[float]:
    """The limit at each step."""
    return [float(record.threshold) for record in run(policy, norms)]


def counting(norms) -> list[float]:
    """Those of ``norms`` that say what is normal."""
    return [norm for norm in norms if math.isfinite(norm) and norm > 0]
