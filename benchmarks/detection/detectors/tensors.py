"""What several published rules look at in a recording: kernels, broken gradients, values that stay the same."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.activations import RECTIFIERS, SQUASHING
from benchmarks.detection.recording import Recording
from gradwatch.records import BoolArray, FloatArray

_RECTIFIERS = tuple(kind.__name__ for kind in RECTIFIERS)
_SQUASHING = tuple(kind.__name__ for kind in SQUASHING)


def kernels(recording: Recording) -> BoolArray:
    """[P], which parameters are what Keras calls kernels: no biases, and nothing that belongs to a normalisation."""
    return np.array(
        [
            "bias" not in name.rsplit(".", 1)[-1] and "Norm" not in kind
            for name, kind in zip(recording.parameters, recording.kinds)
        ],
        bool,
    )


def dense_kernels(recording: Recording) -> BoolArray:
    """[P], which of them are of what Keras calls dense layers."""
    return kernels(recording) & np.array([kind == "Linear" for kind in recording.kinds], bool)


def rectifiers(recording: Recording) -> BoolArray:
    """[A], which activation modules are ReLUs."""
    return np.array([kind in _RECTIFIERS for kind in recording.activation_kinds], bool)


def squashing(recording: Recording) -> BoolArray:
    """[A], which activation modules are sigmoids and tanhs."""
    return np.array([kind in _SQUASHING for kind in recording.activation_kinds], bool)


def broken_gradient(recording: Recording) -> BoolArray:
    """[T, P], where a gradient holds NaN or inf."""
    broken: BoolArray = recording.has_grad & (recording.grad_nonfinite > 0)
    return broken


def broken_output(recording: Recording) -> BoolArray:
    """[T, A], where an activation module ran and gave NaN or inf."""
    ran = ~np.isnan(recording.act_zero)
    broken: BoolArray = ran & ~np.isfinite(recording.act_mean)
    return broken


def unchanged(values: FloatArray, length: int) -> BoolArray:
    """[checks, columns]: at the end of each block of ``length`` checks, whether a value was the same in all of it.

    >>> unchanged(np.array([[1.0], [1.0], [1.0], [2.0]]), 2).ravel().tolist()
    [False, True, False, False]
    """
    same = np.zeros(values.shape, bool)
    for end in range(length, len(values) + 1, length):
        block = values[end - length : end]
        same[end - 1] = (block == block[0]).all(axis=0)
    return same
