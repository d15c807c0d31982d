"""UMLAUT's heuristics during training."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.epochs import Epochs
from benchmarks.detection.detectors.finding import WHOLE_MODEL, Finding, one_column, onsets
from benchmarks.detection.recording import Recording

INPUT_RANGE = (-1.0, 1.0)
LEARNING_RATE_RANGE = (1e-7, 1e-2)


def detect(recording: Recording) -> list[Finding]:
    """The range of the input, the learning rate and the loss, asked at the end of each epoch.

    Source: Schoop, Huang and Hartmann, "UMLAUT: Debugging deep learning programs using program structure and model
    behavior", CHI 2021; ``umlaut/heuristics.py`` of its repository. Its checks of a validation set (overfitting, an
    accuracy that is too high) and of the program's source are left out: the runs have no such set, and no source of
    the kind. The input is the first batch; tokens, which it would call not floating, have no range.
    """
    epochs = Epochs.of(recording)
    lowest, highest = LEARNING_RATE_RANGE
    lr = recording.lr[epochs.last]
    outside = recording.input_min < INPUT_RANGE[0] or recording.input_max > INPUT_RANGE[1]
    checks = {
        "data": np.full(len(epochs), outside),
        "unstable": lr > highest,
        "slow": lr < lowest,
        "nonfinite": np.isnan(epochs.loss),
    }
    return [f for symptom, bad in checks.items() for f in onsets(one_column(bad), epochs.last, WHOLE_MODEL, symptom)]
