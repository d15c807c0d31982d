"""DeepDiagnosis' callback."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.epochs import Epochs
from benchmarks.detection.detectors.finding import WHOLE_MODEL, Finding, first, one_column, onsets
from benchmarks.detection.detectors.tensors import (
    broken_gradient,
    broken_output,
    dense_kernels,
    kernels,
    rectifiers,
    unchanged,
)
from benchmarks.detection.recording import Recording

VANISHING = 1e-7
"""Mean |gradient| of a dense kernel."""

DEAD_SHARE = 0.7
"""Of a ReLU layer's outputs that are not above zero, in the last epoch."""

SATURATED_SHARE = 0.5
"""Of a sigmoid's or tanh's inputs beyond +-5."""

EVERY = 5
"""Epochs between two looks at saturation, and in which a tensor's mean or the loss must change."""

ACCURACY_EPOCHS = 20
"""Epochs in which the accuracy must change."""


def detect(recording: Recording) -> list[Finding]:
    """Asked at the end of each epoch; it stops the training, and so itself, at the first finding.

    Source: Wardat et al., "DeepDiagnosis: Automatically diagnosing faults and recommending actionable fixes in deep
    learning programs", ICSE 2022; class ``mapFaluireToFix`` in ``callback/callbacks.py`` of its repository. What
    differs here:

    - Outputs are those of activation modules, and gradients those of the epoch's last step.
    - Whether the mean of a gradient or weight is zero or the same is asked of its mean magnitude.
    - A numerical error is "nonfinite" here, or "dead" where it is a mean of exactly zero.
    - The check of the last layer's range is left out: it compares outputs with labels.
    """
    epochs = Epochs.of(recording)
    last, numbers = epochs.last, np.arange(len(epochs))
    is_fifth = one_column(numbers % EVERY == EVERY - 1)
    is_final = one_column(numbers == epochs.planned - 1)

    output, loss, accuracy = recording.act_mean[last], one_column(epochs.loss), one_column(epochs.metric)
    weight, gradient = recording.param_mean_abs[last], recording.grad_mean_abs[last]
    dense = dense_kernels(recording)
    trained = dense & recording.has_grad[last]
    by_activation = {
        "nonfinite": broken_output(recording)[last],
        "dead": (output == 0) | (is_final & rectifiers(recording) & (recording.act_zero[last] >= DEAD_SHARE)),
        "saturated": is_fifth & (recording.act_saturated[last] > SATURATED_SHARE),
        "unchanged": unchanged(output, EVERY),
    }
    was_taken = one_column(np.isin(last + 1, recording.metric_steps))
    by_model = {
        "nonfinite": ~np.isfinite(loss) | (was_taken & ~np.isfinite(accuracy)),
        "slow": unchanged(loss, EVERY) | (accuracy == 0) | unchanged(accuracy, ACCURACY_EPOCHS),
    }
    by_parameter = {
        "nonfinite": (dense & broken_gradient(recording)[last]) | (kernels(recording) & ~np.isfinite(weight)),
        "dead": (trained & (gradient == 0)) | (kernels(recording) & (weight == 0)),
        "vanishing": trained & (gradient < VANISHING),
        "unchanged": (trained & unchanged(gradient, EVERY)) | (dense & unchanged(weight, EVERY)),
    }
    return first(
        finding
        for checks, names in (
            (by_activation, recording.activations),
            (by_model, WHOLE_MODEL),
            (by_parameter, recording.parameters),
        )
        for symptom, bad in checks.items()
        for finding in onsets(bad, last, names, symptom)
    )
