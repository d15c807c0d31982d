"""What a report comes down to in plain series: pure functions, for every sink that draws scalars."""

from __future__ import annotations

import numpy as np

from gradwatch import tags
from gradwatch.records import ClipRecord, StepStats


def aggregates(stats: StepStats, clip: ClipRecord | None, alerts: int) -> dict[str, float]:
    """A handful of numbers for all layers together; min, median and max are over the layers with a finite gradient.

    Args:
        stats: one step's statistics.
        clip: what was clipped at this step.
        alerts: number of alerts so far.
    """
    finite = stats.grad_norm[stats.has_grad & np.isfinite(stats.grad_norm)]
    numbers = {
        tags.TOTAL_NORM: stats.total_norm,
        tags.NONFINITE_LAYERS: int((stats.has_grad & ~np.isfinite(stats.grad_norm)).sum()),
        tags.ALERT_COUNT: alerts,
    }
    if len(finite):
        logs = np.sort(np.log10(np.maximum(finite, tags.SMALLEST_NORM))).tolist()
        numbers[tags.LOG10_MIN_NORM] = logs[0]
        numbers[tags.LOG10_MEDIAN_NORM] = (logs[(len(logs) - 1) // 2] + logs[len(logs) // 2]) / 2
        numbers[tags.LOG10_MAX_NORM] = logs[-1]
    if clip is not None:
        numbers[tags.CLIPPED_NORM] = clip.norm_after
        numbers[tags.CLIP_COEFFICIENT] = clip.coefficient
    return numbers


def layer_norms(stats: StepStats) -> dict[str, float]:
    """The norm of each layer that has a gradient, by the tag of its series.

    >>> from gradwatch.history import History
    >>> layer_norms(History.from_grad_norms({"fc": [0.5], "frozen": [None]}).latest)
    {'grad_norm/fc': 0.5}
    """
    columns = zip(stats.layers, stats.grad_norm.tolist(), stats.has_grad.tolist())
    return {tags.layer_tag(tags.LAYER_NORM, name): norm for name, norm, has_grad in columns if has_grad}
