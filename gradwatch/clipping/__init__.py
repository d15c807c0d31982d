"""Clip policies: one per file, each changing the gradients in place from norms that were already measured."""

from gradwatch.clipping.adaptive import AGC
from gradwatch.clipping.autoclip import AutoClip
from gradwatch.clipping.chain import Chain
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.per_group import PerGroup
from gradwatch.clipping.per_layer import PerLayer
from gradwatch.clipping.skip import TooManySkipped
from gradwatch.clipping.skip_nonfinite import SkipNonFinite
from gradwatch.clipping.skip_spike import SkipSpike
from gradwatch.clipping.spike_clip import SpikeClip
from gradwatch.clipping.value import Value
from gradwatch.clipping.zclip import ZClip
from gradwatch.protocols import ClipPolicy

__all__ = [
    "AGC",
    "AutoClip",
    "Chain",
    "ClipPolicy",
    "GlobalNorm",
    "PerGroup",
    "PerLayer",
    "SkipNonFinite",
    "SkipSpike",
    "SpikeClip",
    "TooManySkipped",
    "Value",
    "ZClip",
]
