"""SageMaker Debugger's built-in rules."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.finding import WHOLE_MODEL, Finding, first, one_column, onsets
from benchmarks.detection.detectors.tensors import broken_gradient, broken_output, rectifiers
from benchmarks.detection.recording import Recording

VANISHING = 1e-7
"""VanishingGradient: mean |gradient| of a tensor."""

DEAD_SHARE = 0.5
"""DeadRelu, threshold_layer: share of a layer's ReLUs that are active less than threshold_inactivity, 1%."""

SATURATED_SHARE = 0.5
"""SaturatedActivation, threshold_layer; the limits of an input are those of ``activations.SAGEMAKER``."""

LARGE_UPDATE, SMALL_UPDATE = 10.0, 1e-8
"""WeightUpdateRatio, large_threshold and small_threshold."""


def detect(recording: Recording) -> list[Finding]:
    """VanishingGradient, ExplodingTensor, DeadRelu and SaturatedActivation; WeightUpdateRatio as a warning.

    Source: docs.aws.amazon.com/sagemaker/latest/dg, pages vanishing-gradient, exploding-tensor, dead-relu,
    saturated-activation and weight-update-ratio; the rules themselves are not public. Each of them stops at the first
    tensor that it finds.

    - The default ``save_interval`` of 500 steps would show one or two steps of these runs: every step is judged here.
    - A ReLU is active less than 1% when it is zero on the whole batch, for batches of 100 or less.
    - The ratio of the mean update and weight is that of their L2 norms.
    - PoorWeightInitialization is left out: it needs percentiles of the gradients, which no recording holds.
    """
    steps, names = np.arange(len(recording)), recording.parameters
    with np.errstate(divide="ignore", invalid="ignore"):
        update = recording.update_norm / recording.param_norm
    moved = recording.has_grad & ((update > LARGE_UPDATE) | (update < SMALL_UPDATE))
    dead = rectifiers(recording) & (recording.act_dead_units > DEAD_SHARE)
    saturated = recording.act_saturated_sagemaker > SATURATED_SHARE
    tiny = recording.has_grad & (recording.grad_mean_abs < VANISHING)
    exploding = (
        onsets(one_column(~np.isfinite(recording.loss)), steps, WHOLE_MODEL, "nonfinite")
        + onsets(broken_output(recording), steps, recording.activations, "nonfinite")
        + onsets(broken_gradient(recording) | ~np.isfinite(recording.param_norm), steps, names, "nonfinite")
    )
    return [
        *first(onsets(tiny, steps, names, "vanishing")),
        *first(exploding),
        *first(onsets(dead, steps, recording.activations, "dead")),
        *first(onsets(saturated, steps, recording.activations, "saturated")),
        *first(onsets(moved, steps, names, "unstable", severity="warning")),
    ]
