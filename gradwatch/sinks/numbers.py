"""What a report comes down to in plain series: pure functions, for every sink that draws scalars."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gradwatch import tags
from gradwatch.records import Alert, ClipRecord, FloatArray, StepStats
from gradwatch.told import Told


def aggregates(stats: StepStats, clip: ClipRecord | None) -> dict[str, float]:
    """A handful of numbers for all layers together; min, median and max are over the layers with a finite gradient.

    Args:
        stats: one step's statistics.
        clip: what was clipped at this step.
    """
    finite, numbers = _finite(stats), {tags.TOTAL_NORM: stats.total_norm}
    if len(finite):
        ordered, n = np.sort(finite), len(finite)
        least, below, above, largest = (
            math.log10(max(norm, tags.SMALLEST_NORM)) for norm in ordered[[0, (n - 1) // 2, n // 2, n - 1]].tolist()
        )
        numbers[tags.LOG10_MIN_NORM] = least
        numbers[tags.LOG10_MEDIAN_NORM] = (below + above) / 2
        numbers[tags.LOG10_MAX_NORM] = largest
    if clip is not None:
        numbers[tags.CLIPPED_NORM] = clip.norm_after
        numbers[tags.CLIP_COEFFICIENT] = clip.coefficient
        rates = {tags.CLIP_RATE: clip.rate}
        rates |= {tags.layer_tag(tags.PART_CLIP_RATE, part.group or part.policy): part.rate for part in clip.parts}
        numbers |= {tag: rate for tag, rate in rates.items() if not math.isnan(rate)}
    return numbers


def counts(stats: StepStats, new: Iterable[Alert], told: Told) -> dict[str, float]:
    """How many layers are not finite, and how many findings there were so far; ``new`` alerts are added to ``told``."""
    broken = 0 if stats.norm_range[1] < np.inf else int(stats.has_grad.sum()) - len(_finite(stats))
    for alert in new:
        told.add(alert)
    return {tags.NONFINITE_LAYERS: broken, tags.ALERT_COUNT: told.counts.total()}


def layer_norms(stats: StepStats) -> dict[str, float]:
    """The norm of each layer that has a gradient, by the tag of its series.

    >>> from gradwatch.history import History
    >>> layer_norms(History.from_grad_norms({"fc": [0.5], "frozen": [None]}).latest)
    {'grad_norm/fc': 0.5}
    """
    columns = zip(stats.layers, stats.grad_norm.tolist(), stats.has_grad.tolist())
    return {tags.layer_tag(tags.LAYER_NORM, name): norm for name, norm, has_grad in columns if has_grad}


def _finite(stats: StepStats) -> FloatArray:
    """The norms of the layers that have a finite gradient."""
    norms = stats.grad_norm if np.logical_and.reduce(stats.has_grad) else stats.grad_norm[stats.has_grad]
    return norms if stats.norm_range[1] < np.inf else norms[np.isfinite(norms)]
