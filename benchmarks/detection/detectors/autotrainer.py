"""AutoTrainer's monitor, with the accuracy gate that it has and without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.detectors.epochs import Epochs
from benchmarks.detection.detectors.finding import Finding
from benchmarks.detection.detectors.tensors import broken_gradient, kernels
from benchmarks.detection.recording import Recording
from gradwatch.records import BoolArray, FloatArray, IntArray

CHECK_EVERY = 3
"""Epochs between two checks."""

VANISHING_RATIO, VANISHING_NORM = 1e-3, 1e-4
"""beta_1 and beta_2: |gradient of the first kernel| / |of the last|, and |of the first|."""

EXPLODING_RATIO = 70.0
"""beta_3."""

LARGE_LOSS = 1e3
DEAD_SHARE = 0.7
"""gamma: share of all gradient entries that are exactly zero."""

OSCILLATION, OSCILLATING_SHARE = 0.03, 0.2
"""zeta and eta: a fall of the accuracy from a local maximum to a local minimum, and how often, as a share of epochs."""

LEAST_GAIN = 0.01
"""delta: of the accuracy, in any epoch."""

GOOD_ACCURACY = 0.7
"""Theta."""

LARGE_OUTPUT = 10.0
"""omega_1: mean |output| of a layer."""

JUDGED_FROM, MIDDLE = 0.3, 0.5
"""Shares of the epochs after which the accuracy is looked at, and after which all is judged once."""


def detect(recording: Recording) -> list[Finding]:
    """All of AutoTrainer: a gradient counts only in a run whose accuracy is poor. It stops at the first finding.

    Source: Zhang et al., "AUTOTRAINER: An automatic DNN training problem detection and repair system", ICSE 2021;
    ``AutoTrainer/utils/monitor.py`` and ``utils.py`` of its repository, ``default_param``. What is done when:

    - Checks are at every third epoch. What is not finite, or a loss of 1000 or more, is reported at once.
    - The rest is reported once in the middle of the run, and at every check after one at which no epoch had brought
      0.01 of accuracy. Of the gradient's troubles only the first is named: dead, exploding, vanishing. What earlier
      checks saw still counts.
    - The accuracy's gate is asked with what is known at the report; the program remembers a low one for ever, which
      would make it flag more.
    - Layer outputs are those of activation modules. Its checks of the loss function and of the last activation
      concern other faults. There is no validation set: both accuracies are the training metric, whatever that is.
    """
    seen = _Checks.of(recording)
    epochs = seen.epochs
    slow_before = middle_done = False
    for i, epoch in enumerate(seen.at):
        step = int(epochs.last[epoch])
        if seen.broken[i]:
            return [Finding(step, "exploding")]
        metric = epochs.metric[: epoch + 1]
        judged = epoch + 1 >= JUDGED_FROM * epochs.planned - CHECK_EVERY
        slow = judged and _largest_gain(metric) < LEAST_GAIN
        poor = judged and not (metric >= GOOD_ACCURACY).any()
        middle = not middle_done and epoch >= MIDDLE * epochs.planned
        if slow_before or middle:
            so_far = slice(0, i + 1)
            symptoms = ["data"] if seen.large_output[i] else []
            if poor or slow:
                symptoms += seen.gradient_symptoms(so_far)[:1] or (["slow"] if poor and slow else [])
            if judged and _oscillates(metric):
                symptoms.append("unstable")
            if symptoms:
                return [Finding(step, symptom) for symptom in symptoms]
        slow_before |= slow
        middle_done |= middle
    return []


def detect_ungated(recording: Recording) -> list[Finding]:
    """AutoTrainer without the accuracy: its rules for the gradient and what is broken, reported at the first check."""
    seen = _Checks.of(recording)
    for i, epoch in enumerate(seen.at):
        step = int(seen.epochs.last[epoch])
        symptoms = ["exploding"] if seen.broken[i] else seen.gradient_symptoms(slice(i, i + 1))[:1]
        if symptoms:
            return [Finding(step, symptom) for symptom in symptoms]
    return []


@dataclass(frozen=True, eq=False)
class _Checks:
    """What C checks see: the epochs ``at`` which they are, and arrays [C]."""

    epochs: Epochs
    at: IntArray
    broken: BoolArray
    first_norm: FloatArray
    ratio: FloatArray
    zero_share: FloatArray
    large_output: BoolArray

    @classmethod
    def of(cls, recording: Recording) -> _Checks:
        epochs = Epochs.of(recording)
        at = np.arange(0, len(epochs), CHECK_EVERY)
        if epochs.is_cut_short and len(epochs):  # NaN would still be there at the next check
            at = np.union1d(at, [len(epochs) - 1])
        steps = epochs.last[at]
        is_kernel, present = kernels(recording), recording.has_grad[steps]
        ends = [np.flatnonzero(row & is_kernel)[[0, -1]] if (row & is_kernel).any() else None for row in present]
        norms = [recording.grad_norm[t, k] if k is not None else np.full(2, np.nan) for t, k in zip(steps, ends)]
        first, last = np.array(norms).reshape(-1, 2).T
        numel = recording.numel * present
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = first / last
            zero_share = (recording.grad_zero_fraction[steps] * numel).sum(axis=1) / numel.sum(axis=1)
        good_loss = np.array([(epochs.loss[: epoch + 1] < LARGE_LOSS).all() for epoch in at], bool)
        good_gradient = ~broken_gradient(recording)[steps].any(axis=1)
        good_weights = np.isfinite(recording.param_norm[steps]).all(axis=1)
        return cls(
            epochs,
            at,
            broken=~(good_loss & good_gradient & good_weights),
            first_norm=first,
            ratio=ratio,
            zero_share=zero_share,
            large_output=(recording.act_mean_abs[steps] >= LARGE_OUTPUT).any(axis=1),
        )

    def gradient_symptoms(self, checks: slice) -> list[str]:
        """What the gradients of some checks show, in the order in which AutoTrainer names it."""
        ratio = self.ratio[checks]
        found = {
            "dead": self.zero_share[checks] >= DEAD_SHARE,
            "exploding": ratio > EXPLODING_RATIO,
            "vanishing": (ratio < VANISHING_RATIO) & (self.first_norm[checks] < VANISHING_NORM),
        }
        return [symptom for symptom, bad in found.items() if bad.any()]


def _largest_gain(metric: FloatArray) -> float:
    """From one epoch to the next; 0 where there is none."""
    gains = np.diff(metric)
    return float(np.max(gains[np.isfinite(gains)], initial=0.0))


def _oscillates(metric: FloatArray) -> bool:
    """Whether the k-th local maximum is far above the k-th local minimum, for enough k."""
    before, now, after = metric[:-2], metric[1:-1], metric[2:]
    maxima = now[(now >= before) & (now >= after)]
    minima = now[(now <= before) & (now <= after)]
    pairs = min(len(maxima), len(minima))
    falls = np.count_nonzero(maxima[:pairs] - minima[:pairs] >= OSCILLATION)
    return bool(falls >= OSCILLATING_SHARE * len(metric))
