"""DeepLocalize's callback."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.finding import WHOLE_MODEL, Finding, first, one_column, onsets
from benchmarks.detection.detectors.tensors import broken_gradient, broken_output, dense_kernels, kernels, unchanged
from benchmarks.detection.recording import Recording
from gradwatch.records import BoolArray

EVERY = 5
"""Steps in which a tensor's mean and the loss must change."""


def detect(recording: Recording) -> list[Finding]:
    """Asked at each step; it ends the program, and so itself, at the first finding.

    Source: Wardat et al., "DeepLocalize: Fault localization for deep neural networks", ICSE 2021; class
    ``DeepLocalize`` in ``callback/callbacks.py`` of the repository DeepDiagnosis/ICSE2022. A mean counts when it is not
    finite, when it is exactly zero and has been in half of the steps, or when it is the same in five steps. What
    differs here:

    - Outputs are those of activation modules; the gradients of outputs and the batch's accuracy are not recorded.
    - Whether the mean of a gradient or weight is zero or the same is asked of its mean magnitude.
    - What is not finite is "nonfinite" here, a mean of zero "dead".
    """
    steps = np.arange(len(recording))
    output, loss = recording.act_mean, one_column(recording.loss)
    weight, gradient = recording.param_mean_abs, recording.grad_mean_abs
    is_kernel, dense = kernels(recording), dense_kernels(recording)
    trained = dense & recording.has_grad
    by_activation = {
        "nonfinite": broken_output(recording),
        "dead": _in_half_the_steps(output == 0),
        "unchanged": unchanged(output, EVERY),
    }
    by_model = {"nonfinite": ~np.isfinite(loss), "slow": unchanged(loss, EVERY)}
    by_parameter = {
        "nonfinite": (is_kernel & ~np.isfinite(weight)) | (dense & broken_gradient(recording)),
        "dead": _in_half_the_steps(is_kernel & (weight == 0)) | _in_half_the_steps(trained & (gradient == 0)),
        "unchanged": (dense & unchanged(weight, EVERY)) | (trained & unchanged(gradient, EVERY)),
    }
    return first(
        finding
        for checks, names in (
            (by_activation, recording.activations),
            (by_parameter, recording.parameters),
            (by_model, WHOLE_MODEL),
        )
        for symptom, bad in checks.items()
        for finding in onsets(bad, steps, names, symptom)
    )


def _in_half_the_steps(bad: BoolArray) -> BoolArray:
    """Where ``bad`` [T, N] is true, and has been in at least half of the steps so far."""
    so_far = one_column(np.arange(1, len(bad) + 1))
    found: BoolArray = bad & (2 * np.cumsum(bad, axis=0) >= so_far)
    return found
