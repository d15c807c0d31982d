"""NaN only: what everybody checks, as a row that shows what the other rules are worth."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.finding import WHOLE_MODEL, Finding, one_column, onsets
from benchmarks.detection.detectors.tensors import broken_gradient
from benchmarks.detection.recording import Recording


def detect(recording: Recording) -> list[Finding]:
    """A loss or a gradient that is not finite, but in steps that a gradient scaler skipped.

    It is what Keras' ``TerminateOnNaN`` and Lightning's ``detect_nan_parameters`` look for, a step earlier.
    """
    bad = ~np.isfinite(recording.loss) | broken_gradient(recording).any(axis=1)
    return onsets(one_column(bad & ~recording.skipped), np.arange(len(recording)), WHOLE_MODEL, "nonfinite")
