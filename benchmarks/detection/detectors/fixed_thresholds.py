"""Fixed thresholds on gradient norms: the rule of thumb of many tutorials."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.finding import Finding, onsets
from benchmarks.detection.detectors.tensors import broken_gradient
from benchmarks.detection.recording import Recording

VANISHING = 1e-6
EXPLODING = 1e3


def detect(recording: Recording) -> list[Finding]:
    """Any parameter's gradient norm below 1e-6 or above 1e3, or not finite, at any step.

    The limits are those that NeuralDBG (``neuraldbg.py``) has for the gradients of layer outputs; a recording holds
    those of the parameters, to which users mostly apply them.
    """
    steps, names = np.arange(len(recording)), recording.parameters
    broken = broken_gradient(recording)
    judged = recording.has_grad & ~broken
    return [
        *onsets(broken, steps, names, "nonfinite"),
        *onsets(judged & (recording.grad_norm < VANISHING), steps, names, "vanishing"),
        *onsets(judged & (recording.grad_norm > EXPLODING), steps, names, "exploding"),
    ]
