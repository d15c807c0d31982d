"""What the outputs of activation modules look like: one row of numbers per call."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradwatch.records import FloatArray

RECTIFIERS = (nn.ReLU, nn.ReLU6)
SQUASHING = (nn.Sigmoid, nn.Tanh)
KINDS = (
    *RECTIFIERS,
    *SQUASHING,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
)
"""Modules whose outputs are looked at."""

QUIET = 1e-5
"""TheDeepChecker's limit of an output that is next to nothing (Ben Braiek and Khomh, 2023)."""

SATURATED = 5.0
"""DeepDiagnosis' limit of the input of a sigmoid or tanh (Wardat et al., ICSE 2022)."""

SAGEMAKER = {nn.Sigmoid: (-23.0, 16.99999), nn.Tanh: (-9.4999, 9.4999)}
"""Limits of SageMaker Debugger's SaturatedActivation, from its documentation."""

SATURATED_UNIT = 0.85
"""TheDeepChecker's limit of the mean |output|, rescaled to [-1, 1]: the measure rho of Rakitianskaia and Engelbrecht,
IEEE SSCI 2015, in the limit of many bins."""


class ActivationStats(NamedTuple):
    """One call of one module; as ``act_`` in :class:`~benchmarks.detection.recording.Recording`."""

    mean: float
    mean_abs: float
    std: float
    p95: float
    zero: float
    dead_units: float
    quiet_units: float
    saturated: float
    saturated_sagemaker: float
    saturated_units: float


UNKNOWN = ActivationStats(*[np.nan] * len(ActivationStats._fields))


def activation_stats(module: nn.Module, given: Tensor, output: Tensor) -> ActivationStats:
    """What ``module`` made of ``given``; NaN for what does not apply to its kind, and of nothing at all."""
    if not output.numel():  # as what an expert makes of a batch in which it is not chosen
        return UNKNOWN
    values = by_unit(output)
    size, count = np.abs(values), values.size
    is_zero = values <= 0 if isinstance(module, RECTIFIERS) else values == 0
    with np.errstate(all="ignore"):
        mean = float(np.add.reduce(values, axis=None)) / count
        mean_square = float(np.vdot(values, values)) / count
        return ActivationStats(
            mean=mean,
            mean_abs=float(np.add.reduce(size, axis=None)) / count,
            std=float(np.sqrt(np.maximum(mean_square - mean * mean, 0.0))),
            p95=percentile(size, 0.95),
            zero=np.count_nonzero(is_zero) / count,
            dead_units=1 - np.count_nonzero(size.any(axis=0)) / size.shape[1],
            quiet_units=_quiet_units(size),
            **_saturation(module, given, values),
        )


def by_unit(values: Tensor) -> FloatArray:
    """[everything else, units]: a unit is a channel of what has four dimensions or more, else an entry of the last."""
    if values.ndim >= 4:
        values = values.movedim(1, -1)
    return values.detach().double().numpy().reshape(-1, values.shape[-1] if values.ndim else 1)


def percentile(values: FloatArray, share: float) -> float:
    """The value below which ``share`` of the values lie, without interpolation; NaN where one is NaN.

    >>> percentile(np.arange(100.0), 0.95)
    95.0
    """
    flat = values.reshape(-1)
    if np.isnan(flat).any():
        return float("nan")
    i = min(int(share * flat.size), flat.size - 1)
    return float(np.partition(flat, i)[i])


def _quiet_units(size: FloatArray) -> float:
    rows, units = size.shape
    small = size < QUIET
    if np.count_nonzero(small) < 0.95 * rows:  # not enough for a single unit, as in nearly every call
        return 0.0
    return np.count_nonzero(small.sum(axis=0) >= 0.95 * rows) / units


def _saturation(module: nn.Module, given: Tensor, values: FloatArray) -> dict[str, float]:
    if not isinstance(module, SQUASHING):
        return dict.fromkeys(("saturated", "saturated_sagemaker", "saturated_units"), np.nan)
    inputs = by_unit(given)
    low, high = SAGEMAKER[type(module)]
    rescaled = 2 * values - 1 if isinstance(module, nn.Sigmoid) else values
    return {
        "saturated": np.count_nonzero(np.abs(inputs) > SATURATED) / inputs.size,
        "saturated_sagemaker": np.count_nonzero((inputs < low) | (inputs > high)) / inputs.size,
        "saturated_units": float((np.abs(rescaled).mean(axis=0) > SATURATED_UNIT).mean()),
    }


class ActivationWatch:
    """Measures each activation module of a model once per training step; evaluations without gradients are left out.

    Of the same module called several times in a step, the first call counts.
    """

    def __init__(self, model: nn.Module) -> None:
        found = [(name, module) for name, module in model.named_modules() if isinstance(module, KINDS)]
        self.names = tuple(name for name, _ in found)
        self.kinds = tuple(type(module).__name__ for _, module in found)
        self._now = [UNKNOWN] * len(found)
        self._handles = [module.register_forward_hook(self._hook(i)) for i, (_, module) in enumerate(found)]

    def take(self) -> FloatArray:
        """[A, numbers of ActivationStats], of the calls since the last time."""
        now, self._now = self._now, [UNKNOWN] * len(self._now)
        return np.array(now).reshape(len(now), len(UNKNOWN))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, i: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if torch.is_grad_enabled() and self._now[i] is UNKNOWN:
                self._now[i] = activation_stats(module, args[0], output)

        return hook
