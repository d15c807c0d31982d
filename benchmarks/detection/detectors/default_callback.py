"""DEFault's callback: the rules by which it turns a run into features."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.epochs import Epochs
from benchmarks.detection.detectors.finding import WHOLE_MODEL, Finding, one_column, onsets
from benchmarks.detection.detectors.tensors import rectifiers
from benchmarks.detection.recording import Recording

VANISHING = 1e-4
"""Mean |gradient| over all parameters."""

EXPLODING = 70.0
"""Largest |gradient|."""

DEAD = 0.7
"""Share of a ReLU's outputs that are zero."""


def detect(recording: Recording) -> list[Finding]:
    """Three fixed limits, asked at the end of each epoch.

    Source: Jahan et al., "Improved detection and diagnosis of faults in deep neural networks using hierarchical and
    explainable classification", ICSE 2025, replication package. Its classifiers are trained on these features; here
    each counts as what it is named after. The gradient is that of the epoch's last step; for a step without any
    gradient nothing is said.
    """
    last = Epochs.of(recording).last
    numel = recording.numel * recording.has_grad[last]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_abs = (recording.grad_mean_abs[last] * numel).sum(axis=1) / numel.sum(axis=1)
    # The recorded largest magnitude is that of the finite ones.
    large = (recording.grad_max_abs[last] > EXPLODING) | np.isinf(recording.grad_norm[last])
    dead = rectifiers(recording) & (recording.act_zero[last] > DEAD)
    return [
        *onsets(one_column(mean_abs < VANISHING), last, WHOLE_MODEL, "vanishing"),
        *onsets(one_column(large.any(axis=1)), last, WHOLE_MODEL, "exploding"),
        *onsets(dead, last, recording.activations, "dead"),
    ]
