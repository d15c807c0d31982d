"""Clip policies: one per file, each changing the gradients in place from norms that were already measured."""

from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.value import Value
from gradwatch.protocols import ClipPolicy

__all__ = ["ClipPolicy", "GlobalNorm", "Value"]
