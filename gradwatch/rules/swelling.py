"""Swelling: whether the forward signal grows from layer to layer."""

from __future__ import annotations

import numpy as np

from gradwatch.history import EARLY, History
from gradwatch.records import BoolArray, FloatArray, StepStats
from gradwatch.rules.state import ModelState

ROUNDING = 1e6
"""Ratio of a weight's gradient to its bias's from which the bias's is rounding: of a bias before a normalisation, or of
a loss that is blind to it."""

IN_ONE_PLACE = 0.8
"""Share of the whole rise, in decades, above which it is in one place."""

LARGE = 40.0
"""Of the last layer's input, what healthy networks exceed at the start only in one place, or where all are large."""

ALL_LARGE = 200.0
"""Of every layer's input: the data are in large units."""

RISE = 10.0
"""Growth from the first layer's input to the last one's."""


class Swelling(ModelState):
    """What close looks tell of the layers' inputs, by the gradients of their weights and biases: whatever the loss.

    Of those of the first steps, ``looks`` counts in a row at how many the inputs grew beyond all measure, and ``large``
    at how many so much that the loss begins far from where it should. ``sizes`` are those of the last look.
    """

    def __init__(self) -> None:
        super().__init__(began=True, looks=0, large=0)
        self.rows = np.zeros(0, np.int64)
        self.sizes: FloatArray = np.zeros(0)

    def look(self, history: History, signal: float, step_update: float) -> None:
        """Take the latest step in; nothing where there was no close look. A large step is to blame itself."""
        stats = history.now
        if stats.input_size is None:
            return
        self.rows = np.flatnonzero((stats.input_size > 0) & (stats.input_size < ROUNDING))
        self.sizes = stats.input_size[self.rows]
        if history.count <= EARLY:
            # At one look a bias may happen to have next to no gradient, in one layer as before a normalisation always.
            small = not (stats.total_update or 0.0) > step_update
            self["began"] &= small and self.is_beyond(signal, signal / 10)
            self["looks"] = self["looks"] + 1 if self["began"] else 0
            self["large"] = self["large"] + 1 if small and self.is_large() else 0

    def is_large(self) -> bool:
        """Whether the inputs grow so much that the loss begins far from where it should, or all of them are large."""
        return self.is_beyond(LARGE, RISE) or (len(self.sizes) > 1 and self.sizes.min() > ALL_LARGE)

    def is_beyond(self, size: float, rise: float) -> bool:
        """Whether the last input exceeds ``size``, and the first one by the factor ``rise``, not in one place."""
        sizes = self.sizes
        if len(sizes) < 3 or not sizes[-1] > size or not sizes[-1] > rise * sizes[0]:
            return False
        rises = np.diff(np.log(sizes))
        return bool(rises.max() <= IN_ONE_PLACE * rises.sum())

    def layers_above(self, size: float, stats: StepStats) -> BoolArray:
        """bool [L], the layers whose input exceeds ``size``."""
        above = np.zeros(len(stats.layers), bool)
        above[self.rows] = self.sizes > size
        return above
