"""TheDeepChecker's checks during training."""

from __future__ import annotations

import numpy as np

from benchmarks.detection.detectors.finding import WHOLE_MODEL, Finding, one_column, onsets
from benchmarks.detection.detectors.tensors import broken_gradient, broken_output, kernels, squashing
from benchmarks.detection.recording import Recording
from gradwatch.records import BoolArray, FloatArray, IntArray

PERIOD = 10
"""Steps between two checks; the first of them that looks at tensors is at step 10."""

WINDOW = 5
"""Values in a row, and so four ratios, that must all fall or rise too fast, or not fall enough."""

VANISHING, HALVING = 1e-6, 0.5
"""Mean |gradient| of a kernel, and its ratio to that of the step before."""

EXPLODING, DOUBLING = 1e6, 2.0

SLOWEST_UPDATE, FASTEST_UPDATE = -4.0, -1.0
"""log10 of mean |change| / mean |weight|, the mean over a period."""

QUIET_SHARE = 0.5
"""Of units whose 95th percentile of |output| is below 1e-5."""

SATURATED_SHARE = 0.5
"""Of units whose rho is above 0.85."""

OUTPUT_STD = (0.5, 2.0)
F_CRITICAL = 5.0239
"""By which the variance of a layer's outputs must be beyond OUTPUT_STD squared: the program's value for 2.5%."""

LEAST_FALL = 0.05
"""Of the mean loss from period to period."""


def detect(recording: Recording) -> list[Finding]:
    """What it warns of while a model is trained.

    Source: Ben Braiek and Khomh, "Testing feedforward neural networks training programs", ACM TOSEM 32(4), 2023;
    ``deep_checker/hooks.py``, ``metrics.py`` and ``config/settings.yaml`` of its repository. What differs here:

    - It trains on one batch, to overfit it; here the steps are those of the run that is judged.
    - Outputs are those of activation modules, of one step where it keeps ten.
    - The ratio of the mean change and weight is that of their L2 norms.
    - Left out is what it does before the training (data, initialisation) and after it, and what needs single elements
      of outputs or weights (range, sign).
    """
    every_step = np.arange(len(recording))
    checks = every_step[PERIOD::PERIOD]
    activations, parameters = recording.activations, recording.parameters
    trained = kernels(recording) & recording.has_grad
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.full(recording.grad_mean_abs.shape, np.nan)
        growth[1:] = recording.grad_mean_abs[1:] / recording.grad_mean_abs[:-1]
    vanishing = (recording.grad_mean_abs < VANISHING) | _all_of_the_last(growth <= HALVING, WINDOW - 1)
    exploding = (recording.grad_mean_abs > EXPLODING) | _all_of_the_last(growth >= DOUBLING, WINDOW - 1)
    update = _mean_log_update(recording, checks)
    dead = ~squashing(recording) & (recording.act_quiet_units[checks] > QUIET_SHARE)
    saturated = squashing(recording) & (recording.act_saturated_units[checks] > SATURATED_SHARE)
    return [
        *onsets(one_column(~np.isfinite(recording.loss)), every_step, WHOLE_MODEL, "nonfinite"),
        *onsets(broken_gradient(recording) | ~np.isfinite(recording.param_norm), every_step, parameters, "nonfinite"),
        *onsets(broken_output(recording)[checks], checks, activations, "nonfinite"),
        *onsets((trained & vanishing)[checks], checks, parameters, "vanishing"),
        *onsets((trained & exploding)[checks], checks, parameters, "exploding"),
        *onsets(trained[checks] & (update == 0), checks, parameters, "unchanged"),
        *onsets(trained[checks] & (update > FASTEST_UPDATE) & (update != 0), checks, parameters, "unstable"),
        *onsets(trained[checks] & (update < SLOWEST_UPDATE), checks, parameters, "slow"),
        *onsets(dead, checks, activations, "dead"),
        *onsets(saturated, checks, activations, "saturated"),
        *onsets(_is_out_of_scale(recording.act_std[checks]), checks, activations, "activations"),
        *_stagnation(recording.loss),
    ]


def _all_of_the_last(bad: BoolArray, count: int) -> BoolArray:
    """[T, N], whether ``bad`` is true in this step and the ``count - 1`` before."""
    found = bad.copy()
    for back in range(1, count):
        found[back:] &= bad[:-back]
    found[: count - 1] = False
    return found


def _mean_log_update(recording: Recording, checks: IntArray) -> FloatArray:
    """[checks, P], over the period that ends there; a step without change counts as 0, as in the program."""
    moved, size = recording.update_norm, recording.param_norm
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(moved == 0, 0.0, np.log10(moved / size))
        periods = [logs[check - PERIOD + 1 : check + 1] for check in checks]
        known = [size[check - PERIOD + 1 : check + 1] > 0 for check in checks]
        means = [np.where(k, p, 0.0).sum(axis=0) / k.sum(axis=0) for p, k in zip(periods, known)]
    return np.array(means).reshape(len(checks), moved.shape[1])


def _is_out_of_scale(std: FloatArray) -> BoolArray:
    low, high = OUTPUT_STD
    found: BoolArray = (std < low / F_CRITICAL**0.5) | (std > high * F_CRITICAL**0.5)
    return found


def _stagnation(loss: FloatArray) -> list[Finding]:
    """The mean loss of a period is asked from the first step on: the first period is that step alone."""
    checks = np.arange(0, len(loss), PERIOD)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        means = np.array([loss[max(check - PERIOD + 1, 0) : check + 1].mean() for check in checks])
        falls = np.full(len(means), np.nan)
        falls[1:] = (means[:-1] - means[1:]) / means[:-1]
    return onsets(_all_of_the_last(one_column(falls < LEAST_FALL), WINDOW - 1), checks, WHOLE_MODEL, "slow")
