"""What is compared: no clipping, torch's own, and every policy, with limits from what a healthy run's norms are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import nn

import gradwatch as gw
from gradwatch.clipping import (
    AGC,
    AutoClip,
    Chain,
    ClipPolicy,
    GlobalNorm,
    PerGroup,
    PerLayer,
    SkipNonFinite,
    SkipSpike,
    SpikeClip,
    Value,
    ZClip,
)


class Limits(NamedTuple):
    """99th percentiles over the steps of one healthy run without clipping: what the audit advises."""

    total: float
    layer: float
    """Of the largest layer's norm."""
    element: float
    """Of the largest element."""


class Clipping:
    """Clips at each step of one run. This one does nothing."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def step(self) -> None:
        """The gradients are complete."""

    def rate(self) -> float:
        """Share of the steps that were changed."""
        return 0.0


class Torchs(Clipping):
    """``torch.nn.utils.clip_grad_norm_``."""

    def __init__(self, model: nn.Module, max_norm: float) -> None:
        super().__init__(model)
        self.max_norm = max_norm
        self.clipped: list[bool] = []

    def step(self) -> None:
        total = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.clipped.append(not float(total) <= self.max_norm)

    def rate(self) -> float:
        return float(np.mean(self.clipped))


class Ours(Clipping):
    """A policy, in a monitor."""

    def __init__(self, model: nn.Module, policy: ClipPolicy) -> None:
        super().__init__(model)
        settings = {"sinks": (), "rules": (), "diagnose": False, "histogram_every_n_steps": 0, "strict": True}
        self.monitor = gw.Monitor(model, clip=policy, **settings)

    def step(self) -> None:
        self.monitor.step()

    def rate(self) -> float:
        clip = self.monitor.report().clip
        return 0.0 if clip is None else clip.rate


POLICIES: dict[str, Callable[[Limits], ClipPolicy]] = {
    "GlobalNorm": lambda limits: GlobalNorm(limits.total),
    "Value": lambda limits: Value(limits.element),
    "PerLayer": lambda limits: PerLayer(limits.layer),
    "PerGroup": lambda limits: PerGroup({"head": limits.layer, "*": limits.total}),
    "AGC": lambda limits: AGC(),
    "AutoClip": lambda limits: AutoClip(),
    "ZClip": lambda limits: ZClip(),
    "SpikeClip": lambda limits: SpikeClip(),
    "SkipSpike": lambda limits: SkipSpike(),
    "SkipNonFinite": lambda limits: SkipNonFinite(),
    "SkipNonFinite, GlobalNorm": lambda limits: Chain(SkipNonFinite(), GlobalNorm(limits.total)),
    "SkipNonFinite, SpikeClip": lambda limits: Chain(SkipNonFinite(), SpikeClip()),
}

METHODS = ("no clipping", "clip_grad_norm_", *POLICIES)


def make(method: str, model: nn.Module, limits: Limits) -> Clipping:
    """The clipping of one run."""
    if method == "no clipping":
        return Clipping(model)
    return Torchs(model, limits.total) if method == "clip_grad_norm_" else Ours(model, POLICIES[method](limits))
