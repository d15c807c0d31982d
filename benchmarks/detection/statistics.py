"""The statistics of labels and scores, each a function of plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

Z95 = 1.959963984540054
"""Two-sided 95% of the normal distribution."""


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact one-sided p-value of the sign-flip permutation test that the mean of matched differences is above 0.

    Of all 2^n ways to flip their signs, the share whose sum is at least the one observed (Fisher, The Design of
    Experiments, 1935, section 21). Five differences above 0 give 1/32.

    >>> sign_flip_p([0.5, 0.1, 0.2, 0.3, 0.9]) * 32
    1.0
    """
    sizes = np.array(differences, np.float64)
    sums = np.array(list(product((1.0, -1.0), repeat=len(sizes)))) @ sizes
    rounding = 1e-12 * float(np.abs(sizes).sum())
    return float(np.mean(sums >= sizes.sum() - rounding))


def cohens_d(better: Sequence[float], worse: Sequence[float]) -> float:
    """How far two means are apart, in pooled standard deviations (Cohen 1988); inf where nothing varies but the means.

    >>> cohens_d([2.0, 4.0], [1.0, 3.0])
    0.7071067811865475
    """
    difference = float(np.mean(better) - np.mean(worse))
    spread = math.sqrt((np.var(better, ddof=1) + np.var(worse, ddof=1)) / 2)
    if spread == 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / spread


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927); (0, 1) where nothing was tried.

    >>> [round(limit, 3) for limit in wilson(0, 60)]
    [0.0, 0.06]
    """
    if not trials:
        return 0.0, 1.0
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)
