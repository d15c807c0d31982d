"""The norms of a run as whole arrays, read back from its event files."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from gradwatch import tags
from gradwatch.records import BoolArray, FloatArray, IntArray
from gradwatch.tensorboard_plugin.tables import read


class NormTable(NamedTuple):
    """float32 norms [T, L], 0 where there was no gradient, and whether there was one."""

    layers: tuple[str, ...]
    steps: IntArray
    grad_norm: FloatArray
    has_grad: BoolArray


def read_norms(run: str | os.PathLike[str]) -> NormTable:
    norms = read(run).norms
    table = np.concatenate(norms.parts)
    has_grad = table != tags.NO_GRADIENT
    return NormTable(norms.layers, norms.steps, np.where(has_grad, table, 0.0), has_grad)
